"""``sigmic-guard explain``: one row in words, and what to do about it."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.ledger import SqliteLedger
from sigmic_guard.ledger.looking import see_dead
from sigmic_guard.lifecycle import CancelReason, State, TaskPolicy, terms_of_orphan
from sigmic_guard.lifecycle.explaining import utc_time
from sigmic_guard.sigmic.credentials import Credential
from tests.cli.conftest import KEY, Cli

if TYPE_CHECKING:
    from tests.cli.books import Books

FINGERPRINT = Credential(KEY).fingerprint
OTHER_KEY = "sigmic_" + "b0bb1e" * 10 + "beef"


def told(out: str, name: str) -> list[str]:
    """Return the texts that have this name."""
    lines = [line.split("\t") for line in out.splitlines()]
    return [text for first, text in lines if first == name]


# --- history ------------------------------------------------------------------------------------


async def test_history(cli: Cli, books: Books) -> None:
    """What happened is told in its order, with the times: the owner and the next steps follow."""
    at = 1_769_442_600.0
    await books.add(
        state=State.UNCONFIRMED,
        remote_id="remote-1",
        created_at=at,
        key="nightly",
        posted_at=at + 1,
        lost_at=at + 31,
        orphaned_at=at + 40,
        reason=CancelReason.ORPHAN,
        cancel_requested_at=at + 50,
        deadline_at=at + 45,
        attempts=2,
        last_error="ServerError: the server failed",
        remote_status="running",
    )
    ended = await cli.run("explain", "remote-1")
    assert ended.code == 0
    lines = [line.split("\t") for line in ended.out.splitlines()]
    assert [text for name, text in lines if name in {"task", "intent"}] == ["remote-1", "intent-1"]
    [state] = told(ended.out, "state")
    assert state.startswith("unconfirmed: ")
    assert "may still run" in state
    assert [line for line in lines if line[0].startswith("2026-") or not line[0]] == [
        ["2026-01-26T15:50:00Z", "taken on in the namespace 'default', with the key 'nightly'"],
        ["2026-01-26T15:50:01Z", f"the create went out to {cli.emulator.url}"],
        ["2026-01-26T15:50:31Z", "the create's answer was given up for lost"],
        [
            "2026-01-26T15:50:40Z",
            "last sign of life of an owner that died; it was taken over since",
        ],
        ["2026-01-26T15:50:45Z", "its deadline passed"],
        ["2026-01-26T15:50:50Z", "to be cancelled (orphan): its owner had died"],
        ["", "2 DELETEs proved nothing"],
        ["", "the last error: ServerError: the server failed"],
        ["", "the last status that the API told: running"],
    ]
    assert told(ended.out, "owner") == ["dead-owner, dead; it left no sign of life"]
    [reapable] = told(ended.out, "reapable")
    assert reapable.startswith("yes: its owner is dead")
    assert cli.emulator.count() == 0


@pytest.mark.parametrize("state", State)
async def test_every_state(cli: Cli, books: Books, state: State) -> None:
    """There is a sentence for each state, finished or not."""
    ended_states = {State.FAILED, State.CANCELLED, State.NEVER_CREATED, State.DETACHED}
    await books.add(state=state, finished_at=time.time() if state in ended_states else None)
    ended = await cli.run("explain", "intent-1")
    assert ended.code == 0
    [sentence] = told(ended.out, "state")
    assert sentence.startswith(f"{state}: ")


@pytest.mark.parametrize("reason", CancelReason)
async def test_every_reason(cli: Cli, books: Books, reason: CancelReason) -> None:
    """Each has its words, that one included which only later versions write."""
    await books.add(
        state=State.CANCELLING, remote_id="remote-1", reason=reason, cancel_requested_at=200.0
    )
    ended = await cli.run("explain", "remote-1")
    assert ended.code == 0
    assert f"to be cancelled ({reason}): " in ended.out


async def test_a_living_owner(cli: Cli, books: Books) -> None:
    """A living owner's task is not reaped, and the last sign of life is told."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await ledger.upkeep(time.time() - 65)
        await books.add(owner_id="living")
        ended = await cli.run("explain", "intent-1")
    finally:
        await ledger.aclose()
    [owner] = told(ended.out, "owner")
    assert owner.startswith("living, alive; its last sign of life was 1m")
    assert owner.endswith(f"; pid {os.getpid()}")
    assert told(ended.out, "reapable") == ["no: its owner lives, and minds it"]
    assert "forget" not in ended.out


@pytest.mark.parametrize("release, what", [(False, "sees to its end"), (True, "lets it go")])
async def test_a_living_owner_of_an_orphan(
    cli: Cli, books: Books, release: bool, what: str
) -> None:
    """Who took a dead owner's task over does not mind it, and what he does is told."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add(
            owner_id="living",
            state=State.TAKEN_OVER,
            orphaned_at=time.time() - 60,
            policy=terms_of_orphan(TaskPolicy(), release=release),
        )
        ended = await cli.run("explain", "intent-1")
    finally:
        await ledger.aclose()
    assert told(ended.out, "reapable") == [f"no: whoever took it over lives, and {what}"]
    [state] = told(ended.out, "state")
    assert state.startswith("taken_over: its owner died")


async def test_an_owner_that_is_about_to_leave(cli: Cli, books: Books) -> None:
    """What was handed over is nobody's, though its owner has yet to go."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add(owner_id="living", state=State.HANDED_OVER, key="k")
        ended = await cli.run("explain", "intent-1")
    finally:
        await ledger.aclose()
    assert told(ended.out, "reapable") == ["no: its owner has let go of it, and is about to leave"]
    assert "asks for the key takes it over" in ended.out


@pytest.mark.parametrize("state", [State.HANDED_OVER, State.RUNNING])
async def test_the_time_for_its_key(cli: Cli, books: Books, state: State) -> None:
    """It begins when somebody puts on record that the owner is gone, and until then it says so."""
    policy = TaskPolicy(on_crash="reattach", reattach_within=500)
    await books.add(state=state, key="k", policy=policy)
    how = "on_shutdown" if state is State.HANDED_OVER else "on_crash"
    ended = await cli.run("explain", "intent-1")
    [reapable] = told(ended.out, "reapable")
    assert reapable == (
        f'no: {how}="reattach": for 8m20s somebody may come for its key, and that time has not '
        "begun: nobody has put on record yet that its owner is gone"
    )
    assert "sigmic-guard reap does so, and so does any supervisor here" in told(ended.out, "next")
    await see_dead(str(books.file))
    with closing(sqlite3.connect(books.file)) as shell, shell:
        shell.execute("UPDATE owners SET dead_at=dead_at-200")
    ended = await cli.run("explain", "intent-1")
    [reapable] = told(ended.out, "reapable")
    assert re.search(f'no: {how}="reattach": for [45]m\\d+s more, until 20.*Z, somebody', reapable)
    assert "not begun" not in ended.out


async def test_a_dead_owner(cli: Cli, books: Books) -> None:
    """It is told which job it is, whose, and since when its owner is dead."""
    at = time.time() - 7500
    await books.add(key="nightly")
    await see_dead(str(books.file))
    with closing(sqlite3.connect(books.file)) as shell, shell:
        shell.execute("UPDATE owners SET pid=4711, seen_at=?, dead_at=dead_at-310", (at,))
    ended = await cli.run("explain", "intent-1")
    [owner] = told(ended.out, "owner")
    assert re.fullmatch(
        rf"dead-owner, dead; its last sign of life was 2h05m ago, at {utc_time(at)}; "
        r"its death was first seen 5m\d\ds ago; pid 4711",
        owner,
    )
    assert told(ended.out, "key") == ["nightly"]


async def test_a_finished_task(cli: Cli, books: Books) -> None:
    """What is over is told as such, without a word on what is to come."""
    at = 1_769_442_600.0
    await books.add(
        state=State.NEVER_CREATED,
        remote_id=None,
        created_at=at,
        deadline_at=at + 500,
        reason=CancelReason.USER,
        cancel_requested_at=at + 5,
        finished_at=at + 60,
    )
    ended = await cli.run("explain", "intent-1")
    assert told(ended.out, "state") == ["never_created: it never existed, and cost nothing"]
    assert told(ended.out, "owner") == [
        "was dead-owner; that process is gone; it left no sign of life"
    ]
    assert "was to be cancelled (user)" in ended.out
    assert "its deadline would have passed" in ended.out
    for word in ("reapable", "next", "will ", "sigmic-guard"):
        assert word not in ended.out


# --- reapable or not ----------------------------------------------------------------------------

REATTACH = TaskPolicy(on_crash="reattach", reattach_within=500)
#: What a row has that another one has not; whether it is reaped, why, and what one can do.
CASES: dict[str, tuple[dict[str, Any], bool, str, str]] = {
    "running": ({}, True, "a DELETE ends it", "sigmic-guard reap "),
    "abandoned": ({"policy": TaskPolicy(on_crash="abandon")}, True, "lets it run on", "reap"),
    "waits for its key": (
        {"policy": REATTACH, "key": "k"},
        False,
        "somebody may come for its key",
        "asks for the key takes it over",
    ),
    "too late for its key": (
        {"policy": TaskPolicy(on_crash="reattach", reattach_within=0.0), "key": "k"},
        True,
        "a DELETE ends it",
        "reap",
    ),
    "handed over": (
        {"state": State.HANDED_OVER, "key": "k"},
        False,
        'on_shutdown="reattach": for ',
        "asks for the key takes it over",
    ),
    "handed over, and nobody came": (
        {
            "state": State.HANDED_OVER,
            "key": "k",
            "policy": TaskPolicy(on_crash="abandon", reattach_within=0.0),
        },
        True,
        "a DELETE ends it",
        "reap",
    ),
    "taken over": (
        {"state": State.TAKEN_OVER, "orphaned_at": 1_769_442_600.0},
        True,
        "a GET tells whether it still runs",
        "reap",
    ),
    "taken over to be let go": (
        {
            "state": State.TAKEN_OVER,
            "orphaned_at": 1_769_442_600.0,
            "policy": TaskPolicy(on_crash="abandon"),
        },
        True,
        "was to let it run on: only this row goes",
        "reap",
    ),
    "unknown": ({"state": State.UNKNOWN, "remote_id": None}, True, "mark it carries", "reap"),
    "unknown, without a mark": (
        {"state": State.UNKNOWN, "remote_id": None, "message_digest": "00" * 32},
        True,
        "by message and age, is looked for in the list, and reported",
        "reap",
    ),
    "another key's": (
        {"credential_fingerprint": "0123456789ab"},
        False,
        f"fingerprint 0123456789ab, and SIGMIC_API_KEY has {FINGERPRINT}",
        "with that key in SIGMIC_API_KEY",
    ),
    "no API": ({"base_url": "ftp://there"}, False, "'ftp://there', which is no API", "forget"),
    "finished": (
        {"state": State.DETACHED, "finished_at": 1_769_442_600.0},
        False,
        "off the books",
        "sigmic-guard cancel -- ",
    ),
}


@pytest.mark.parametrize("fields, reapable, why, advice", CASES.values(), ids=CASES)
async def test_reapable_or_not(
    cli: Cli, books: Books, fields: dict[str, Any], reapable: bool, why: str, advice: str
) -> None:
    """It is told whether the task would be reaped, why, and what one can do; reaping agrees."""
    await books.add(**fields)
    ended = await cli.run("explain", "intent-1", "--json")
    [told] = ended.of_kind("explanation")
    assert told["reapable"] is reapable
    assert why in told["why"]
    assert any(advice in line for line in told["advice"])
    plan = await cli.run("reap", "--dry-run", "--json")
    verdicts = [line["verdict"] for line in plan.of_kind("orphan")]
    assert (verdicts in (["reap"], ["release"])) is reapable


async def test_adopted_meanwhile(cli: Cli, books: Books) -> None:
    """A task that a living owner has adopted is let go by the row of the dead one."""
    ledger = SqliteLedger(books.file)
    await ledger.open("living")
    try:
        await books.add("old", remote_id="same")
        await books.add("new", remote_id="same", owner_id="living")
        ended = await cli.run("explain", "old")
        ambiguous = await cli.run("explain", "same")
    finally:
        await ledger.aclose()
    assert "a live one has adopted the task" in ended.out
    assert (ambiguous.code, ambiguous.out) == (1, "")
    assert "say which of " in ambiguous.err
    assert "old (running)" in ambiguous.err
    assert "new (running)" in ambiguous.err


async def test_without_a_key(cli: Cli, books: Books) -> None:
    """Without an API key it is told what cannot be told."""
    await books.add()
    del cli.env["SIGMIC_API_KEY"]
    ended = await cli.run("explain", "intent-1")
    assert ended.code == 0
    [reapable] = told(ended.out, "reapable")
    assert reapable.startswith("perhaps: ")
    assert f"fingerprint {FINGERPRINT}" in reapable
    assert told(ended.out, "next") == ["set SIGMIC_API_KEY, and ask again"]


async def test_no_key_is_shown(cli: Cli, books: Books) -> None:
    """A fingerprint is all that is ever told of a key."""
    await books.add()
    cli.env["SIGMIC_API_KEY"] = OTHER_KEY
    ended = await cli.run("explain", "intent-1", "--json")
    assert Credential(OTHER_KEY).fingerprint in ended.out
    assert OTHER_KEY[7:] not in ended.out + ended.err


# --- which row ----------------------------------------------------------------------------------


async def test_unknown(cli: Cli, books: Books) -> None:
    """What the ledger does not have leads to exit code 1, and a line that says what to do."""
    ended = await cli.run("explain", "nothing")
    assert (ended.code, ended.out) == (1, "")
    assert "there is no ledger" in ended.err
    await books.add()
    ended = await cli.run("explain", "nothing", "--json")
    assert ended.code == 1
    assert [line["kind"] for line in ended.lines] == ["error"]
    assert "has no task nothing; sigmic-guard ps" in ended.err


async def test_what_is_no_text(cli: Cli, books: Books) -> None:
    """Bytes that are no UTF-8 are an id like any other."""
    await books.add()
    ended = await cli.run("explain", "\udcff", "--json")
    assert ended.code == 1


async def test_advice_is_safe_in_a_shell(cli: Cli, books: Books) -> None:
    """An id that a shell would obey is quoted where a command is advised."""
    nasty = "x; rm -rf ~ #"
    await books.add(remote_id=nasty, policy=REATTACH, key="k")
    ended = await cli.run("explain", nasty)
    assert f"cancel -- {shlex.quote(nasty)} ends it" in ended.out
    assert nasty not in ended.out.replace(shlex.quote(nasty), "").replace(f"task\t{nasty}", "")
