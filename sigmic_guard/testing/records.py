"""Rows to try a ledger with."""

from __future__ import annotations

from typing import Any, Final

from sigmic_guard.lifecycle import CancelReason, Record, State, TaskPolicy

#: A row in which no field has its default value.
FULL_RECORD: Final = Record(
    intent_id="intent-1",
    namespace="näme/space 'x' 🚀",
    base_url="https://sigmic.test:8443/base",
    credential_fingerprint="0123456789abcdef",
    owner_id="owner-1",
    policy=TaskPolicy(
        timeout=0.1,
        on_exit="detach",
        on_shutdown="detach",
        on_crash="reattach",
        confirm="terminal",
        cancel_wait=1e-3,
        reattach_within=0.7,
        on_lost="cancel",
    ),
    created_at=1_769_442_654.870_000_1,
    state=State.UNCONFIRMED,
    version=9_007_199_254_740_993,  # no float can hold it
    remote_id='a/b?c#d%2f..\n"\\\u2028',
    deadline_at=1_769_442_654.1 + 0.2,
    key='the key\'s "name"',
    posted_at=1.5,
    lost_at=1.75,
    message_digest="0f" * 32,
    orphaned_at=1.125,
    asked_at=1.875,
    reason=CancelReason.DEADLINE,
    cancel_requested_at=2.25,
    attempts=17,
    last_error="line\nbreak \x00 and ünicode",
    finished_at=1_769_442_700.25,
    remote_status="a status of tomorrow",
)


def make_record(intent_id: str = "intent-1", **fields: Any) -> Record:
    """Return a valid unfinished row; ``fields`` are those of :class:`Record`."""
    basic: dict[str, Any] = {
        "namespace": "default",
        "base_url": "https://sigmic.test",
        "credential_fingerprint": "fake",
        "owner_id": "owner-1",
        "policy": TaskPolicy(),
        "created_at": 1_769_442_654.87,
    }
    return Record(intent_id=intent_id, **(basic | fields))
