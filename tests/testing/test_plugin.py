"""The pytest plugin, as users' test suites meet it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def users(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's test suite that knows the plugin."""
    pytester.makeconftest('pytest_plugins = ["sigmic_guard.testing.plugin"]')
    pytester.makeini("[pytest]\nanyio_mode = auto\nfilterwarnings = error")
    return pytester


def run(users: pytest.Pytester, source: str) -> pytest.RunResult:
    fixture = "import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    users.makepyfile(fixture + source)
    return users.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")


def test_a_test_that_ends_its_tasks_passes(users: pytest.Pytester) -> None:
    """The fixture is a FakeSigmic, in async tests and in others."""
    result = run(
        users,
        """
import anyio
async def test_async(sigmic):
    task_id = sigmic.add("hello")
    assert await sigmic.delete(task_id, timeout=1)
def test_sync(sigmic):
    async def main():
        sigmic.cancel(sigmic.add("hello"))
    anyio.run(main)
""",
    )
    result.assert_outcomes(passed=2)


def test_a_test_that_leaves_tasks_fails_and_names_them(users: pytest.Pytester) -> None:
    """What still runs at the end of a test is told with its id, its status and its message."""
    result = run(
        users,
        """
async def test_one(sigmic):
    sigmic.add("ended"), sigmic.add("forgotten")
    sigmic.complete(sigmic.created[0])
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*1 remote task outlived the test:*",
            "*<Task *-000000000002 running: 'forgotten'>*",
        ]
    )
    result.stdout.no_fnmatch_line("*'ended'*")


def test_the_options_can_be_overridden(users: pytest.Pytester) -> None:
    """A suite says once how its remote system is."""
    result = run(
        users,
        """
@pytest.fixture
def sigmic_options(): return {"duration": 0, "answer": "42"}
async def test_one(sigmic):
    assert sigmic.tasks[sigmic.add("hello")].content == "42"
""",
    )
    result.assert_outcomes(passed=1)


def test_a_real_server_finds_them_too(users: pytest.Pytester) -> None:
    """The emulator's fixture is a server that listens, and names what is left on it."""
    result = run(
        users,
        """
import aiohttp
@pytest.mark.parametrize("end", [True, False])
async def test_one(sigmic_emulator, end):
    headers = {"Authorization": "Bearer sigmic_" + "0" * 64}
    async with aiohttp.ClientSession(sigmic_emulator.url, headers=headers) as session:
        data = {"message": "EMULATED", "env": {"EMULATOR_SCRIPT": '{"hold": true}'}}
        async with session.post("/api/v1/tasks", json=data) as answer:
            task_id = (await answer.json())["data"]["id"]
        if end:
            async with session.delete("/api/v1/tasks/" + task_id) as answer:
                assert answer.status == 200
""",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 remote task outlived*", "*<Task *'EMULATED'>*"])
