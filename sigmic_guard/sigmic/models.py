"""What travels to and from the Sigmic Task API, as plain data.

Source: the API page. The client is liberal: unknown fields are ignored, unknown statuses kept as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sigmic_guard.lifecycle.secrets import Secrets
from sigmic_guard.lifecycle.values import check_paths, check_secrets, check_variables, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The statuses that a task never leaves by itself, nor costs anything in.
TERMINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})
#: The statuses of a task that has not ended, whatever else is told of it.
LIVE_STATUSES: Final = frozenset({"pending", "running", "awaiting_approval"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What ``POST /api/v1/tasks`` shall create. What it says never shows in a repr.

    Its strings, paths and mappings are copied, and are exactly that: not of a subclass.

    :raises ConfigurationError: ``files``, ``env`` or ``secrets`` cannot be read.
    """

    message: str = field(repr=False)
    files: tuple[Path, ...] = ()
    system_prompt: str | None = field(default=None, repr=False)
    auto_execute: bool = True
    show_in_history: bool = True
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Kept as :class:`~sigmic_guard.lifecycle.secrets.Secrets`, which can be read like a mapping.
    secrets: Mapping[str, str] | Secrets = field(default_factory=Secrets, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "message", plain(self.message))
        put(self, "files", check_paths("files", self.files) if self.files else ())
        put(self, "system_prompt", plain(self.system_prompt))
        put(self, "env", check_variables("env", self.env))
        put(self, "secrets", check_secrets("secrets", self.secrets))

    def with_env(self, name: str, value: str) -> CreateRequest:
        """Return the same request with one more variable in ``env``."""
        put, more = object.__setattr__, object.__new__(CreateRequest)
        for its in CreateRequest.__slots__:  # they are plain by now: nothing is to be read again
            put(more, its, getattr(self, its))
        put(more, "env", {**self.env, name: value})
        return more


class TaskOutput(msgspec.Struct, frozen=True, rename="camel"):
    """What a task has said so far."""

    content: str | None = None
    updated_at: str | None = None


class PendingApproval(msgspec.Struct, frozen=True, rename="camel"):
    """A tool call that waits for a decision."""

    call_id: str
    tool_name: str | None = None
    args: Any = None


class TaskInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A task as ``GET /api/v1/tasks/{id}`` and the list show it. Times are ISO-8601 UTC."""

    id: str
    status: str
    message: str | None = None
    system_prompt: str | None = None
    username: str | None = None
    session_id: str | None = None
    conversation_id: str | None = None
    env: dict[str, str] | None = None
    error: Any = None
    created_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    last_activity_at: str | None = None
    message_count: int | None = None
    output: TaskOutput | None = None
    pending_approvals: tuple[PendingApproval, ...] | None = None

    @property
    def terminal(self) -> bool:
        """Whether the task has ended.

        One in an undocumented status has, if its ``completed_at`` is set; else it may be billed.
        """
        if self.status in TERMINAL_STATUSES:
            return True
        return bool(self.completed_at) and self.status not in LIVE_STATUSES


class Scrap(msgspec.Struct, frozen=True):
    """An item of the list that tells no task: it has no id, or is no object, or was not read.

    :ivar raw: its JSON; empty where it was not read.
    :ivar message: the message of its task, if it tells that.
    """

    raw: bytes
    message: str | None = None

    @property
    def tells_something(self) -> bool:
        """Whether it is an object with anything in it; else it may stand for any task at all."""
        return self.raw[:1] == b"{" and b'"' in self.raw

    def __repr__(self) -> str:
        return f"<Scrap of {len(self.raw)} bytes>"


class TaskPage(msgspec.Struct, frozen=True):
    """One page of the list, most recent activity first.

    :ivar scraps: its items that tell no task. They have places in the list all the same.
    """

    tasks: list[TaskInfo]
    total: int | None
    has_more: bool
    scraps: tuple[Scrap, ...] = ()

    @property
    def places(self) -> int:
        """How far the next page is from this one."""
        return len(self.tasks) + len(self.scraps)
