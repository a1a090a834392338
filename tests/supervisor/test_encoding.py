"""What cannot be encoded is refused in the call that brings it: no row is written, nothing sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard import ConfigurationError, State
from sigmic_guard.ledger import MemoryLedger
from tests.supervisor.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sigmic_guard.ledger import Refusal, Write


LONE = "a\ud800b"
HUGE = 10**5000


def deep(levels: int = 5_000) -> Any:
    """Lists in one another, deeper than any encoder goes."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> Any:
    """A mapping that holds itself."""
    value: dict[str, Any] = {}
    value["A"] = value
    return value


class Counting(MemoryLedger):
    """Counts the rows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    async def commit(self, writes: Sequence[Write]) -> Sequence[Refusal | None]:
        self.written += len(writes)
        return await super().commit(writes)


REFUSED: dict[str, dict[str, Any]] = {
    "a lone surrogate in the message": {"message": LONE},
    "in the prompt": {"system_prompt": LONE},
    "in the name of a variable": {"env": {LONE: "x"}},
    "in a variable": {"env": {"A": LONE}},
    "in the name of a secret": {"secrets": {LONE: "x"}},
    "in a secret": {"secrets": {"A": LONE}},
    "in a path": {"files": [LONE]},
    "in the key": {"key": LONE},
    "in a choice": {"on_exit": LONE},
    "a huge number as message": {"message": HUGE},
    "in a huge variable": {"env": {"A": HUGE}},
    "as a flag": {"auto_execute": HUGE},
    "as a time-out": {"timeout": HUGE},
    "as a deadline": {"deadline": HUGE},
    "a deep list in a variable": {"env": {"A": deep()}},
    "in a deep secret": {"secrets": {"A": deep()}},
    "as message": {"message": deep()},
    "as prompt": {"system_prompt": deep()},
    "as a deep key": {"key": deep()},
    "a cycle as env": {"env": cycle()},
    "a cycle as secrets": {"secrets": cycle()},
    "a cycle in a variable": {"env": {"A": cycle()}},
    "bytes": {"env": {"A": b"\xff"}},
    "not a number": {"secrets": {"A": float("nan")}},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("call", ["task", "run", "start"])
async def test_a_create(call: str, name: str) -> None:
    """Whatever creates a task refuses it before the intent."""
    options = {"message": "m", **REFUSED[name]}
    message = options.pop("message")
    lab, ledger = Lab(), Counting()
    async with lab.open(ledger=ledger) as supervisor:
        with pytest.raises(ConfigurationError):
            if call == "task":
                async with supervisor.task(message, **options):
                    pass
            else:
                await getattr(supervisor, call)(message, **options)
        assert not supervisor.snapshot()
    assert ledger.written == 0
    assert lab.fake.count("create") == 0
    assert lab.finished == {}


@pytest.mark.parametrize(
    "message", [LONE, HUGE, deep(), cycle()], ids=["lone", "huge", "deep", "cycle"]
)
async def test_a_follow_up(message: Any, tmp_path: Path) -> None:
    """So does a follow-up, with and without files; and the task is as it was."""
    lab, ledger = Lab(), Counting()
    (tmp_path / "f").touch()
    async with lab.open(ledger=ledger) as supervisor:
        task = await supervisor.start("m")
        written = ledger.written
        for files in ([], [tmp_path / "f"]):
            with pytest.raises(ConfigurationError):
                await task.send(message, files=files)
        with pytest.raises(ConfigurationError):
            await task.send("m", files=[LONE])
        assert task.state is State.RUNNING
        assert ledger.written == written
        assert lab.fake.count("send") == 0


async def test_what_looks_as_bad_is_sent() -> None:
    """Any other text is sent as it is."""
    lab, ledger = Lab(), Counting()
    odd = "\x00\x1b\u2028\ufffe\U0010ffff" + "[" * 100_000
    async with lab.open(ledger=ledger) as supervisor:
        task = await supervisor.start(odd, env={"A": odd}, secrets={"B": odd}, system_prompt=odd)
        assert lab.fake.tasks[task.id].message == odd
        assert ledger.written
