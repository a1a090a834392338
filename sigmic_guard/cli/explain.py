"""``sigmic-guard explain``: one row of a ledger in words, and what to do about it."""

from __future__ import annotations

import os
from shlex import quote
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

from sigmic_guard.cli.codes import DONE
from sigmic_guard.cli.identifiers import ambiguity
from sigmic_guard.cli.ps import fields
from sigmic_guard.errors import ConfigurationError, SigmicGuardError
from sigmic_guard.ledger.looking import find
from sigmic_guard.ledger.schema import clean_text
from sigmic_guard.lifecycle import Record, State, Verdict, claimable_for
from sigmic_guard.lifecycle.explaining import history, span, state_in_words, utc_time
from sigmic_guard.lifecycle.states import NAMELESS
from sigmic_guard.sigmic.credentials import ENVIRONMENT_VARIABLE
from sigmic_guard.sigmic.keyring import ACCOUNT_VARIABLE, Keyring
from sigmic_guard.watchdog.reaping import judge_row

if TYPE_CHECKING:
    from sigmic_guard.cli.terminal import Terminal
    from sigmic_guard.ledger.looking import OwnedRow


class Explanation(NamedTuple):
    """What becomes of a task, why, and what one can do."""

    #: Whether ``sigmic-guard reap`` would see to it; ``None`` if that cannot be told.
    reapable: bool | None
    why: str
    advice: tuple[str, ...]


async def explain(terminal: Terminal, identifier: str, *, path: str) -> int:
    """Tell of one row, by its remote or its intent id, or the beginning of one.

    :raises LedgerError: the ledger cannot be read.
    :raises SigmicGuardError: it has no such row, or several.
    """
    identifier = clean_text(identifier)
    rows = await find(path, identifier)
    if rows is None:
        raise SigmicGuardError(f"there is no ledger {path}")
    if not rows:
        raise SigmicGuardError(
            f"the ledger {path} has no task {identifier}; sigmic-guard ps lists what is under way"
        )
    if (ambiguous := ambiguity(identifier, rows)) is not None:
        raise SigmicGuardError(f"{identifier} {ambiguous}")
    if len(rows) > 1:
        several = ", ".join(f"{row.record.intent_id} ({row.record.state})" for row in rows)
        raise SigmicGuardError(f"{identifier} is the task of several rows: say which of {several}")
    await _tell(terminal, rows[0], time())
    return DONE


async def _tell(terminal: Terminal, row: OwnedRow, now: float) -> None:
    record, moments = row.record, list(history(row.record, now))
    told = outlook(row, _fingerprint(), now)
    if terminal.json:
        shown = {
            **fields(row, now),
            "finished_at": record.finished_at,
            "history": [moment._asdict() for moment in moments],
            "reapable": told.reapable,
            "why": told.why,
            "advice": told.advice,
        }
        await terminal.object({"kind": "explanation", **shown})
        return
    lines = [
        ("task", record.remote_id or "its id is not known"),
        ("intent", record.intent_id),
        *([("key", record.key)] if record.key is not None else ()),
        ("state", f"{record.state}: {state_in_words(record)}"),
        *((utc_time(moment.at), moment.text) for moment in moments),
        ("owner", owner(row, now)),
        *([("reapable", f"{_WORDS[told.reapable]}: {told.why}")] if not row.finished else ()),
        *(("next", advice) for advice in told.advice),
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        await terminal.paragraph(name, text, width=width)


def owner(row: OwnedRow, now: float) -> str:
    """Tell who owns it, or did, and whether that owner lives, or since when there is no sign."""
    pid = f"; pid {row.pid}" if row.pid is not None else ""
    if row.seen is None:
        seen = "it left no sign of life"
    else:
        seen = f"its last sign of life was {span(now - row.seen)} ago, at {utc_time(row.seen)}"
    if row.finished:
        life = "that process lives on" if row.alive else f"that process is gone; {seen}"
        return f"was {row.record.owner_id}{pid}; {life}"
    life = "alive" if row.alive else "dead"
    if row.doubtful:
        life = "alive as far as can be told: this user may not read its lock file"
    death = f"; its death was first seen {span(row.dead_for)} ago" if row.seen_dead else ""
    return f"{row.record.owner_id}, {life}; {seen}{death}{pid}"


def outlook(row: OwnedRow, fingerprint: str | None, now: float) -> Explanation:
    """Tell what becomes of a row, why, and what one can do.

    :param fingerprint: of our credential, if there is one.
    """
    record = row.record
    # An id comes from elsewhere, and whoever reads this may hand it to a shell.
    cancel = (
        f"sigmic-guard cancel -- {quote(record.remote_id)} ends it" if record.remote_id else None
    )
    if record.finished_at is not None:
        may_run = record.state is State.DETACHED and cancel is not None
        return Explanation(False, "it is off the books", (cancel,) if may_run and cancel else ())
    if row.alive:
        if record.over:
            why = "its owner has let go of it, and is about to leave"
            again = "a process that asks for the key takes it over, now or later"
            return Explanation(False, why, (again, cancel) if cancel else (again,))
        advice = (f"{cancel} all the same, and its owner will learn of it",) if cancel else ()
        why = "its owner lives, and minds it"
        if record.orphan:
            what = "lets it go" if record.to_be_released else "sees to its end"
            why = f"whoever took it over lives, and {what}"
        return Explanation(False, why, advice)
    forget = (
        f"sigmic-guard forget {quote(record.intent_id)} takes it off the books, and leaves the "
        "task as it is"
    )
    verdict = judge_row(row, fingerprint or record.credential_fingerprint, now)
    match verdict:
        case Verdict.OTHER_SYSTEM:
            why = f"it was made at {record.base_url!r}, which is no API that one could ask"
            return Explanation(False, why, (forget,))
        case Verdict.OTHER_CREDENTIAL:
            why = (
                f"it was made with the API key (or for the account) of fingerprint "
                f"{record.credential_fingerprint}, and {_what_we_have()} has {fingerprint}"
            )
            again = (
                f"sigmic-guard reap, with that key in {ENVIRONMENT_VARIABLE} or that account in "
                f"{ACCOUNT_VARIABLE}, ends it"
            )
            return Explanation(False, why, (again, forget))
        case Verdict.WAIT:
            left = claimable_for(record, row.orphaned_at, row.dead_for, now)
            how = "on_shutdown" if record.state is State.HANDED_OVER else "on_crash"
            again = "a process that asks for the key takes it over; after that time reap ends it"
            if row.seen_dead:
                why = (
                    f'{how}="reattach": for {span(left)} more, until {utc_time(now + left)}, '
                    "somebody may come for its key"
                )
                return Explanation(False, why, (again, cancel) if cancel else (again,))
            why = (
                f'{how}="reattach": for {span(left)} somebody may come for its key, and that time '
                "has not begun: nobody has put on record yet that its owner is gone"
            )
            begin = "sigmic-guard reap does so, and so does any supervisor here"
            return Explanation(False, why, (again, begin, *([cancel] if cancel else [])))
        case Verdict.RELEASE if row.wanted:
            why = "its owner is dead, and a live one has adopted the task: only this row goes"
        case Verdict.RELEASE if record.orphan:
            why = "who took it over is dead, and was to let it run on: only this row goes"
        case Verdict.RELEASE:
            why = 'its owner is dead, and on_crash="abandon" lets it run on: only its row goes'
        case _:
            why = f"its owner is dead; {_how(record)}"
    if fingerprint is None:
        return Explanation(
            None,
            f"{why}; that takes the API key of fingerprint {record.credential_fingerprint}, and "
            f"whether you have it cannot be told: {ENVIRONMENT_VARIABLE} is not set",
            (f"set {ENVIRONMENT_VARIABLE}, and ask again",),
        )
    return Explanation(
        True, why, ("sigmic-guard reap does that, and so does any supervisor here", forget)
    )


def _what_we_have() -> str:
    return ACCOUNT_VARIABLE if os.environ.get(ACCOUNT_VARIABLE) else ENVIRONMENT_VARIABLE


def _how(record: Record) -> str:
    if record.state not in NAMELESS:
        return "a GET tells whether it still runs, and a DELETE ends it then"
    if record.message_digest is None:
        return "it is looked for in the list by the mark it carries, and ended if it exists"
    what = "ended" if record.policy.on_lost == "cancel" else "reported, and not ended"
    return f"what may be it, by message and age, is looked for in the list, and {what}"


_WORDS: Final = {True: "yes", False: "no", None: "perhaps"}


def _fingerprint() -> str | None:
    try:
        return Keyring().fingerprint
    except ConfigurationError:
        return None
