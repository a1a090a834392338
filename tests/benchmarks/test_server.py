"""The benchmarks' server answers as the API does, keeps books, and ends with whoever started it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks.core.books import Script, check_books, task_id
from benchmarks.core.serving import Server, environment, serving
from sigmic_guard import TaskNotFound
from sigmic_guard.sigmic import CreateRequest, SigmicClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sigmic_guard.sigmic.sse import ServerSentEvent

KEY: Final = "sigmic_" + "0" * 64
#: Seconds; far more than any of it takes.
TIMEOUT: Final = 30.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("server")
    with serving(folder, []) as server:
        yield server


async def test_it_keeps_books_of_what_our_client_does(running: Server) -> None:
    running.reset(Script(seed=1))
    async with SigmicClient(KEY, running.url) as client:
        name = await client.create(CreateRequest(message="m", env={"A": "b"}), timeout=TIMEOUT)
        info = await client.get(name, timeout=TIMEOUT)
        assert (info.status, info.message, info.env) == ("running", "m", {"A": "b"})
        page = await client.list(timeout=TIMEOUT)
        assert [task.id for task in page.tasks] == [name, task_id(0)]
        assert running.books().running == 2
        for _ in range(2):
            assert await client.delete(name, timeout=TIMEOUT)
        with pytest.raises(TaskNotFound):
            await client.delete("nobody", timeout=TIMEOUT)
    books = running.books()
    assert (books.posts, books.deletes, books.reads) == (1, 2, 2)
    assert (books.running, books.twice, books.unknown) == (1, 1, 1)
    assert len([*check_books(books)]) == 3


async def test_it_streams_an_answer_of_the_size_that_was_asked_for(running: Server) -> None:
    running.reset(Script(seed=1, events=1000, size=300))
    async with SigmicClient(KEY, running.url) as client:
        stream = await client.stream(task_id(0), timeout=TIMEOUT, silence=TIMEOUT)
        events: list[ServerSentEvent] = []
        while some := await stream.receive():
            events += some
        stream.close()
    kinds = [event.event for event in events]
    assert kinds == ["history_message", "history_done", *["content"] * 1000, "done"]
    assert running.books().running == 0


def test_it_ends_with_its_standard_input() -> None:
    """However whoever started it dies, nothing is left behind."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
