"""Which ledger a command means, and what ``sigmic-guard reap`` would do with a row of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.ledger import LEDGER_VARIABLE, chosen_ledger_url, sqlite_path
from sigmic_guard.lifecycle import Verdict, judge
from sigmic_guard.sigmic.urls import check_base_url

if TYPE_CHECKING:
    from sigmic_guard.ledger.looking import OwnedRow


def ledger_path(url: str | None) -> str:
    """Return the absolute path of the ledger that a command means.

    :param url: default: ``SIGMIC_GUARD_LEDGER``, and then the default file.
    :raises ConfigurationError: no ledger has such a URL, or it lives in its process only.
    """
    try:
        path = sqlite_path(url or chosen_ledger_url())
    finally:
        del url  # a traceback that is printed with its locals must not show a password
    if path is None:
        raise ConfigurationError(
            f"the ledger 'memory:' lives and dies with its process, and nobody else can look into "
            f"it: name a file with --ledger, or in {LEDGER_VARIABLE}"
        )
    return str(Path(path).absolute())


def judge_row(row: OwnedRow, fingerprint: str, now: float) -> Verdict:
    """Tell what becomes of a dead owner's row when ``sigmic-guard reap`` comes.

    :param fingerprint: of the credential that it would have.
    """
    record = row.record
    if not _is_base_url(record.base_url):
        return Verdict.OTHER_SYSTEM
    verdict = judge(
        record,
        base_url=record.base_url,
        credential_fingerprint=fingerprint,
        orphaned_at=row.orphaned_at,
        dead_for=row.dead_for,
        now=now,
    )
    if verdict is Verdict.REAP and row.adopted:
        return Verdict.RELEASE
    return verdict


def _is_base_url(text: str) -> bool:
    try:
        return check_base_url(text) == text
    except ConfigurationError:
        return False
