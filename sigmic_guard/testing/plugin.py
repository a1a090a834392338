"""pytest fixtures that find the tasks a test leaves behind.

In your ``conftest.py``::

    pytest_plugins = ["sigmic_guard.testing.plugin"]

and in your tests::

    async def test_a_question_is_answered(sigmic):
        sigmic.script("What is 2+2?", duration=5, answer="4")
        async with Supervisor(client=sigmic, ledger="memory:") as supervisor:
            ...

A test that uses ``sigmic`` or ``sigmic_emulator`` fails if a remote task still runs at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sigmic_guard.testing.fake_api import FakeSigmic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sigmic_guard.emulator import Emulator

__all__ = ["sigmic", "sigmic_emulator", "sigmic_options"]


@pytest.fixture
def sigmic_options() -> dict[str, Any]:
    """Arguments for the :class:`~sigmic_guard.testing.FakeSigmic` of ``sigmic``: override it."""
    return {}


@pytest.fixture
def sigmic(sigmic_options: dict[str, Any]) -> Iterator[FakeSigmic]:
    """The remote system in memory; no task of it may be live when the test ends.

    It is looked at when the test's event loop may be gone, and its clock with it: a task that
    would have ended by itself since anybody looked last counts as left behind.
    """
    fake = FakeSigmic(**sigmic_options)
    yield fake
    left = fake.live
    _fail_for([repr(task) for task_id, task in fake.tasks.items() if task_id in left])


@pytest.fixture
async def sigmic_emulator() -> AsyncIterator[Emulator]:
    """The remote system as a real server on this machine, for the real client; asyncio only.

    It needs a plugin that runs async fixtures, such as anyio's. No task of it may be live when the
    test ends.
    """
    from sigmic_guard.emulator import Emulator  # noqa: PLC0415 - it brings a web server along

    async with Emulator() as emulator:
        yield emulator
        _fail_for(
            [
                f"<Task {task_id} {task.status}: {task.message!r}>"
                for task_id, task in emulator.tasks.items()
                if task.live
            ]
        )


def _fail_for(left: list[str]) -> None:
    if left:
        count = "1 remote task" if len(left) == 1 else f"{len(left)} remote tasks"
        pytest.fail(f"{count} outlived the test:\n  " + "\n  ".join(left), pytrace=False)
