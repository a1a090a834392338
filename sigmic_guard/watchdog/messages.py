"""What a watchdog's parent writes into its helper's standard input.

First a line with the helper's ``sys.path``, then one with its :class:`HelperConfig`, both in JSON;
then any number of lines that begin with :data:`NEW_CREDENTIAL`; in the end :data:`EXIT` or
:data:`TAKE_OVER`. A parent that dies says nothing more, which means :data:`TAKE_OVER` too.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

#: Nothing is left to be done: exit.
EXIT: Final = b"exit\n"
#: Something is: go on as if the parent had died, as soon as its lock is gone.
TAKE_OVER: Final = b"take over\n"
#: What a line begins with that brings another credential, in JSON.
NEW_CREDENTIAL: Final = b"credential "


class HelperConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the helper has to know."""

    parent: int
    owner_id: str
    namespace: str
    base_url: str
    ledger: str
    authorization: str
    #: Of the account, or of the first credential: whose rows are ours.
    fingerprint: str
    create_timeout: float
    grace: float

    def __repr__(self) -> str:
        return f"<HelperConfig of {self.owner_id}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("owner_id", self.owner_id)]
