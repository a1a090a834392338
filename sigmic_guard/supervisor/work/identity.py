"""Whether a stream is the task's own: :class:`Identity`.

Two creates whose answers were mixed up on the way have each other's ids, and nothing in an event
tells whose it is, except the history: it begins with the message of the create.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sigmic_guard.supervisor.ground.marking import told_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.supervisor.ground.entry import Entry
    from sigmic_guard.supervisor.ground.origins import Origins

#: An event: its type, its data, and the data as they came.
Said = tuple[str, Any, str]


class Identity:
    """Withholds what a stream says until that is known to be about the task.

    Another message than ours is no proof, as a server may put it in its own form: then GET tells.
    Where a stream shows none, nothing speaks against it.

    :ivar in_doubt: what came is withheld until GET has told.
    """

    def __init__(self, task: Entry, origins: Origins) -> None:
        self._task = task
        self._origins = origins
        self.in_doubt = False
        #: What came before the message.
        self._withheld: list[Said] = []

    def connect(self) -> None:
        """Expect the history from its begin."""
        self.in_doubt = False
        self._withheld.clear()

    def admit(self, kind: str, data: Any, raw: str) -> Sequence[Said]:
        """Take the next event in, and return what may be given to the consumer."""
        said = (kind, data, raw)
        if self._task.prompt is None:
            return (said,)
        self._withheld.append(said)
        if self.in_doubt:
            return ()
        if kind == "history_message":
            if not isinstance(data, dict) or data.get("role") != "user":
                return ()
            text = data.get("content")
            if not isinstance(text, str) or told_by(text) != self._task.prompt:
                self.in_doubt = True
                return ()
            self._origins.trust(self._task)
        released, self._withheld = self._withheld, []
        return released
