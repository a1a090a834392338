"""What people call a task by: its id, that of its intent, or the beginning of either."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sigmic_guard.cli.ledger import ledger_path
from sigmic_guard.errors import ConfigurationError, LedgerError, SigmicGuardError
from sigmic_guard.ledger.looking import MAX_FOUND, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sigmic_guard.ledger.looking import OwnedRow

#: An id of the API in full, and what may be a part of one: nothing else is looked up for a command
#: that asks the API, as an id might be the beginning of another one.
_WHOLE: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_PART: Final = re.compile(r"[0-9a-f-]{4,35}", re.ASCII)


def ambiguity(identifier: str, rows: Sequence[OwnedRow]) -> str | None:
    """Return what to say if it is the beginning of several tasks' ids; ``None`` if it is not."""
    names: dict[str, str] = {}
    for record in (row.record for row in rows):
        if identifier in {record.intent_id, record.remote_id}:
            return None
        remote_id = record.remote_id or ""
        shown = remote_id if remote_id.startswith(identifier) else record.intent_id
        names[remote_id or record.intent_id] = shown
    if len(names) < 2:
        return None
    several = sorted(names.values())
    more = " and more" if len(several) >= MAX_FOUND else ""
    return f"fits several tasks: say which of {', '.join(several[: MAX_FOUND - 1])}{more}"


async def remote_id_of(identifier: str) -> str:
    """Return the id of the task that the ledger of the environment knows by it, or else itself.

    :raises SigmicGuardError: it is the beginning of several.
    """
    rows: Sequence[OwnedRow] | None = None
    if _PART.fullmatch(identifier) is not None:
        with suppress(LedgerError, ConfigurationError):  # then the API may know it
            rows = await find(ledger_path(None), identifier)
    if not rows:
        return identifier
    if (several := ambiguity(identifier, rows)) is not None:
        raise SigmicGuardError(f"{identifier} {several}")
    remote_id = rows[0].record.remote_id or ""
    return remote_id if _WHOLE.fullmatch(remote_id) is not None else identifier
