"""How a task goes, as the emulator's user says it: `Script`, and which one a new task gets."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Self

import msgspec

ENV_NAME = "EMULATOR_SCRIPT"
"""The name in a create's `env` whose value, the JSON of `Script` fields, scripts that one task."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a task says and how it ends. Times are in seconds.

    The first turn stays `pending` for `pending` seconds, then runs for `duration`, over which it
    spreads, in this order, its `thoughts`, `subagents`, `tool_calls`, the `approval` and the
    `chunks` of its answer. A turn that answers a follow-up message runs for `duration` as well and
    says only `follow_up`.

    Raises:
        ValueError: a time is negative or not finite, `approval_at` is not 0 to 1, or `approval` is
            empty. `fail` may be empty.
    """

    duration: float = 0.05
    pending: float = 0.0
    chunks: tuple[str, ...] = ("Hello", " ", "world")
    thoughts: tuple[str, ...] = ()
    tool_calls: tuple[str, ...] = ()
    """Names of tools; each is called, and gives a result, without asking."""
    subagents: tuple[str, ...] = ()
    """Names of subagents; each starts, thinks, uses a tool, and ends."""
    fail: str | None = None
    """The first turn ends with this error instead of completing."""
    answer: str | None = None
    """The final response of the first turn; None is the chunks."""
    approval: str | None = None
    """Name of the tool that the first turn asks for; it stands still until it is told."""
    approval_at: float = 0.5
    """The part of the duration, 0 to 1, that passes before it asks."""
    follow_up: tuple[str, ...] = ("Done", ".")
    hold: bool = False
    """No turn ends by itself: it says all it has to say and runs on until pushed or cancelled."""

    def __post_init__(self) -> None:
        """Refuse times that no clock can keep, and make every sequence a tuple."""
        for name in ("duration", "pending"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                message = f"Script.{name} is a finite number of seconds, 0 or more, not {value!r}"
                raise ValueError(message)
        for name in ("chunks", "thoughts", "tool_calls", "subagents", "follow_up"):
            value = getattr(self, name)
            if isinstance(value, str):
                message = f"Script.{name} is several strings, such as ({value!r},), not one"
                raise ValueError(message)  # noqa: TRY004 - so does all that is wrong with a script
            object.__setattr__(self, name, tuple(value))
        if not 0 <= self.approval_at <= 1:
            message = f"Script.approval_at is 0 to 1, not {self.approval_at!r}"
            raise ValueError(message)
        if self.approval == "":
            message = "Script.approval is the name of a tool, or None"
            raise ValueError(message)

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Self:
        """A script from decoded JSON; raises ValueError for an unknown field or a wrong value."""
        if unknown := set(fields) - {field.name for field in dataclasses.fields(cls)}:
            message = f"a Script has no field {', '.join(sorted(unknown))}"
            raise ValueError(message)
        return msgspec.convert(fields, cls)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """A script from JSON; raises ValueError where `from_fields` does, or for broken JSON."""
        return cls.from_fields(msgspec.json.decode(text, type=dict[str, object]))


class ScriptBook:
    """Finds the script of a new task: its env's, else that for its message, else the default."""

    def __init__(self, default: Script) -> None:
        """Begin with a default and nothing else."""
        self.default = default
        self._initial = default
        self._by_message: dict[str, Script] = {}
        self._by_predicate: list[tuple[Callable[[str], bool], Script]] = []

    def add(self, match: str | Callable[[str], bool], script: Script) -> None:
        """Script the tasks with exactly this message, or whose message the predicate accepts."""
        if isinstance(match, str):
            self._by_message[match] = script
        else:
            self._by_predicate.append((match, script))

    def find(self, message: str, env: Mapping[str, str] | None) -> Script:
        """The script for a create; raises ValueError if its env carries one that is wrong."""
        if env and (text := env.get(ENV_NAME)) is not None:
            return Script.from_json(text)
        if (script := self._by_message.get(message)) is not None:
            return script
        for accepts, script in self._by_predicate:
            if accepts(message):
                return script
        return self.default

    def reset(self) -> None:
        """Forget everything but the default that it began with."""
        self.default = self._initial
        self._by_message.clear()
        self._by_predicate.clear()
