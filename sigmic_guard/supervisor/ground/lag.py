"""What reads may still say of the time before a write.

The API may answer a read from a copy that has not heard of the last write: it does not know a task
that was created a moment ago, or shows it completed as it was before a follow-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from sigmic_guard.sigmic.models import TaskInfo

#: Seconds after a create or a follow-up was answered for which reads may lag behind it.
BRAND_NEW: Final = 2.5
#: Seconds by which the wall clock of another process may be wrong.
WRONG_CLOCK: Final = 3600.0


class End(NamedTuple):
    """What the API told of the end of a turn; ``None`` for what it did not tell."""

    completed_at: str | None = None
    updated_at: str | None = None
    #: The text as GET has it.
    content: str | None = None
    #: The text as the stream's ``done`` has it.
    final_response: str | None = None

    @property
    def answer(self) -> str | None:
        """The agent's final response."""
        return self.final_response if self.content is None else self.content


def end_in(info: TaskInfo) -> End:
    """Return what GET or the list tell of the end of a completed task."""
    output = info.output
    if output is None:
        return End(info.completed_at)
    return End(info.completed_at, output.updated_at, output.content)


def is_new(end: End, before: End | None) -> bool:
    """Tell whether it is certainly not the end that was known before.

    The most telling that both have decides. The two texts are not compared with each other: they
    may differ for one and the same end.
    """
    if before is not None:
        for ours, theirs in zip(end, before, strict=True):
            if ours is not None and theirs is not None:
                return ours != theirs
    return False
