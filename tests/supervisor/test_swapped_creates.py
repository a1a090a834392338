"""Creates whose answers were mixed up on the way: nobody gets what another create asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after, sleep

from sigmic_guard import RemoteTask, State, Supervisor, TaskEvent
from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.sigmic.models import CreateRequest, TaskInfo
from sigmic_guard.sigmic.sse import ServerSentEvent
from sigmic_guard.supervisor.ground.marking import MARKER
from sigmic_guard.supervisor.work.identity import Identity
from sigmic_guard.testing import HANG, FakeSigmic
from sigmic_guard.testing.fake_stream import FakeStream, sse
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.supervisor.lab import Lab, too_many
from tests.supervisor.orphanage import core_of

virtual = pytest.mark.backends(TRIO_VIRTUAL)


class Rotated(FakeSigmic):
    """Answers each of the first creates with the id of the next one's task."""

    size = 2
    #: Seconds by which the second answer comes later.
    late = 0.0

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        task_id = await super().create(request, timeout=timeout)
        await self.until(lambda: len(self.created) >= self.size)
        first = self.created[: self.size]
        if task_id not in first:
            return task_id
        if task_id == first[1]:
            await sleep(self.late)
        return first[(first.index(task_id) + 1) % self.size]


class Foreign(FakeSigmic):
    """Answers the first create with the id of a task that another process has created."""

    other = ""

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        task_id = await super().create(request, timeout=timeout)
        self.other, other = "", self.other
        return other or task_id


def rotated(size: int = 2, *, duration: float | None = 5.0) -> Lab:
    """Messages are ``m-0``, ``m-1``, …; each is answered with itself, after some time."""
    lab = Lab()
    lab.fake = fake = Rotated()
    fake.size = size
    for number in range(size + 1):
        fake.script(f"m-{number}", duration=duration, chunks=(f"m-{number}", "!"))
    return lab


async def by_run(supervisor: Supervisor, message: str, options: Any) -> str | None:
    return (await supervisor.run(message, **options)).final_response


async def by_result(supervisor: Supervisor, message: str, options: Any) -> str | None:
    async with supervisor.task(message, **options) as task:
        return (await task.result()).final_response


async def by_events(supervisor: Supervisor, message: str, options: Any) -> str | None:
    async with supervisor.task(message, **options) as task:
        events = [event async for event in task.events()]
    assert not any(event.replayed for event in events)
    [first, *_] = events
    assert first.data["content"] == message
    return "".join(event.text for event in events)


async def by_wait(supervisor: Supervisor, message: str, options: Any) -> str | None:
    task = await supervisor.start(message, **options)
    return (await task.wait()).final_response


async def by_refresh(supervisor: Supervisor, message: str, options: Any) -> str | None:
    task = await supervisor.start(message, **options)
    await task.refresh()
    return (await task.wait()).final_response


READS = [by_run, by_result, by_events, by_wait, by_refresh]


async def ask_all(supervisor: Supervisor, reads: Sequence[Any], **options: Any) -> list[str | None]:
    answers: list[str | None] = [None] * len(reads)

    async def ask(number: int) -> None:
        more = {"key": f"k-{number}"} if options.get("key") else {}
        answers[number] = await reads[number](supervisor, f"m-{number}", options | more)

    with fail_after(100):
        async with create_task_group() as group:
            for number in range(len(reads)):
                group.start_soon(ask, number)
    return answers


@virtual
@pytest.mark.parametrize("options", [{}, {"key": "k"}, {"timeout": 60}], ids=str)
@pytest.mark.parametrize("second", READS)
@pytest.mark.parametrize("first", READS)
async def test_two_creates_whose_answers_are_swapped(
    first: Callable[..., Any], second: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Whichever read comes first, each gets its own answer, and no task gets a DELETE."""
    lab = rotated()
    async with lab.open() as supervisor:
        assert await ask_all(supervisor, [first, second], **options) == ["m-0!", "m-1!"]
    assert lab.deletes() == 0
    assert lab.finished == {("completed", "none"): 2}


@virtual
async def test_who_believes_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the comparison each gets what the other asked for."""
    monkeypatch.setattr(Identity, "admit", lambda _, *said: (said,))
    lab = rotated()
    async with lab.open() as supervisor:
        assert await ask_all(supervisor, [by_run, by_run]) == ["m-1!", "m-0!"]


@virtual
async def test_two_creates_with_the_same_message() -> None:
    """No stream tells them apart; a list that is read anyway does, and both begin anew."""
    lab = Lab()
    lab.fake = fake = Rotated()
    got: dict[str, list[TaskEvent]] = {}
    async with lab.open() as supervisor:

        async def ask() -> None:
            async with supervisor.task("m") as task:
                events = [event async for event in task.events()]
                got[task.id] = events
                assert (await task.result()).final_response == f"of {task.id}"
                assert fake.tasks[task.id].env[MARKER] == task._entry.record.intent_id

        with fail_after(60):
            async with create_task_group() as group:
                group.start_soon(ask)
                group.start_soon(ask)
                await fake.until(lambda: fake.open_streams == 2)
                background = await supervisor.start("something else")
                await sleep(5)
                for task_id in fake.created:
                    fake.complete(task_id, f"of {task_id}")
        await background.wait()
    assert len(got) == 2
    for events in got.values():
        assert not any(event.replayed for event in events)
        assert [event.type for event in events].count("history_done") == 2


@virtual
@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("read", READS)
async def test_one_answer_comes_long_before_the_other(
    read: Callable[..., Any], marker: bool
) -> None:
    """The task of a create that has no answer yet is nobody else's either."""
    lab = rotated()
    assert isinstance(lab.fake, Rotated)
    lab.fake.late = 3.0
    async with lab.open(marker=marker) as supervisor:
        assert await ask_all(supervisor, [read, read]) == ["m-0!", "m-1!"]
    assert lab.deletes() == 0


@virtual
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("size", [3, 5])
async def test_a_ring_of_creates_whose_answers_are_mixed_up(
    read: Callable[..., Any], size: int
) -> None:
    """It need not be two, and none has the task of the one that has its own."""
    lab = rotated(size)
    async with lab.open() as supervisor:
        wanted = [f"m-{number}!" for number in range(size)]
        assert await ask_all(supervisor, [read] * size) == wanted
    assert lab.deletes() == 0


@virtual
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("read", READS)
async def test_creates_that_carry_no_mark(read: Callable[..., Any], size: int) -> None:
    """Their messages tell whose they are."""
    lab = rotated(size)
    async with lab.open(marker=False) as supervisor:
        wanted = [f"m-{number}!" for number in range(size)]
        assert await ask_all(supervisor, [read] * size) == wanted
    assert lab.deletes() == 0


@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("with_files", [0, 1])
async def test_one_of_two_has_files(
    read: Callable[..., Any], with_files: int, tmp_path: Path
) -> None:
    """The mark of the one, or the message of the other, tells both."""
    (tmp_path / "data").write_text("x")
    lab = rotated(duration=0.5)

    async def ask(supervisor: Supervisor, message: str, options: Any) -> str | None:
        if message == f"m-{with_files}":
            options = options | {"files": [tmp_path / "data"]}
        answer: str | None = await read(supervisor, message, options)
        return answer

    async with lab.open() as supervisor:
        assert await ask_all(supervisor, [ask, ask]) == ["m-0!", "m-1!"]
    assert lab.deletes() == 0


@virtual
@pytest.mark.parametrize("read", READS)
async def test_a_create_answered_with_the_task_of_another_process(
    read: Callable[..., Any],
) -> None:
    """Its mark is nobody's here: it is let be, and the list tells our own."""
    lab = Lab()
    lab.fake = fake = Foreign()
    fake.script("m-0", duration=5, chunks=("m-0", "!"))
    fake.script("private", duration=2, answer="private answer")
    other = fake.other = fake.add("private", **{MARKER: "another's"})
    async with lab.open() as supervisor:
        assert await ask_all(supervisor, [read]) == ["m-0!"]
        assert not core_of(supervisor).watcher._watched
    assert lab.deletes() == 0
    assert fake.tasks[other].status == "completed"


@virtual
async def test_the_good_case_costs_no_request() -> None:
    """A create and a stream are all that a task needs, whatever its message looks like."""
    lab = Lab(duration=1.0)
    async with lab.open() as supervisor:
        for message in ("m", "  trimmed \n", "ünïcode\U0001f600", "two\nlines"):
            await supervisor.run(message)
    assert {call.method for call in lab.fake.requests} == {"create", "stream"}
    assert len(lab.fake.requests) == 8


class Rewritten(FakeSigmic):
    """Shows messages in a form of its own."""

    def __init__(self, show: Callable[[str], Any]) -> None:
        super().__init__(duration=5.0)
        self.show = show

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> FakeStream:
        stream = await super().stream(task_id, timeout=timeout, silence=silence)
        stream._head = [self._shown(event) for event in stream._head]
        return stream

    def _shown(self, event: ServerSentEvent) -> ServerSentEvent:
        if event.event != "history_message":
            return event
        return sse(event.event, {"id": "m-1", "role": "user", "content": self.show("m")})

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        info = await super().get(task_id, timeout=timeout)
        shown = self.show("m")
        if not isinstance(shown, str):
            return info
        return TaskInfo(id=info.id, status=info.status, message=shown, env=info.env)


@virtual
@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize(
    "show",
    [lambda m: f"{m} [redacted]", lambda m: [{"type": "text", "text": m}], lambda _: None],
    ids=["redacted", "in parts", "nothing"],
)
async def test_a_message_that_the_server_shows_in_its_own_form(
    show: Callable[[str], Any], marker: bool
) -> None:
    """That is no proof: GET is asked once, and then every event is given, once."""
    lab = Lab()
    lab.fake = Rewritten(show)
    async with lab.open(marker=marker) as supervisor, supervisor.task("m") as task:
        kinds = [event.type async for event in task.events()]
    assert kinds == ["history_message", "history_done", "status", "content", "done"]
    assert lab.fake.count("get") == 1


@virtual
async def test_a_follow_up_is_not_taken_for_a_mistake() -> None:
    """The history has several messages of the user by then, and repeats them at a reconnect."""
    lab = Lab(duration=5.0)
    async with lab.open() as supervisor:
        other = await supervisor.start("again")
        async with supervisor.task("m") as task:
            assert (await task.result()).final_response == "the answer"
            task_id = task.id
            for _ in range(2):
                await task.send("again")
                assert (await task.result()).final_response == "the answer"
                lab.fake.drop_streams()
        assert task.id == task_id
        assert task.state is State.COMPLETED
        await other.wait()
    assert lab.fake.count("create") == 2
    assert lab.deletes() == 0


class WithAPreface(FakeSigmic):
    """Puts messages of others before that of the create."""

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> FakeStream:
        stream = await super().stream(task_id, timeout=timeout, silence=silence)
        for role in ("assistant", "system"):
            event = sse("history_message", {"id": role, "role": role, "content": "hello"})
            stream._head.insert(0, event)
        return stream


@virtual
async def test_what_comes_before_the_message() -> None:
    """It is given in its order, as soon as the message has shown whose it is."""
    lab = Lab()
    lab.fake = WithAPreface(duration=1.0)
    async with lab.open() as supervisor, supervisor.task("m") as task:
        roles = [e.data["role"] async for e in task.events() if e.type == "history_message"]
    assert roles == ["system", "assistant", "user"]
    assert lab.fake.count("get") == 0


@virtual
@pytest.mark.parametrize("reaction", [too_many(3.0), HANG], ids=["refused", "no answer"])
async def test_a_cancel_takes_effect_on_the_right_task(reaction: Any) -> None:
    """A DELETE that got no answer before the mistake was seen is not sent again for that task."""
    lab = rotated(duration=None)
    tasks: dict[str, RemoteTask] = {}
    async with lab.open(left=1) as supervisor:

        async def ask(message: str) -> None:
            tasks[message] = await supervisor.start(message, on_shutdown="detach", cancel_wait=20)

        async with create_task_group() as group:
            group.start_soon(ask, "m-0")
            group.start_soon(ask, "m-1")
        mine, other = tasks["m-0"], tasks["m-1"]
        wrong = mine.id
        lab.fake.on("delete", reaction)
        with fail_after(20):
            assert (await mine.cancel()).result == "acknowledged"
        assert lab.fake.tasks[mine.id].message == "m-0"
        assert lab.deletes(mine) == 1
        assert lab.deletes(wrong) == 1  # the one that was not answered
        assert lab.fake.live == {wrong}
        with fail_after(20):
            while other.state is not State.RUNNING:
                await other.refresh()
        assert other.id == wrong


@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("read", READS)
async def test_over_http(read: Callable[..., Any], tmp_path: Path) -> None:
    """The second create is answered with the first one's id, and the first's answer is lost."""
    async with (
        Emulator(script=Script(duration=0.3)) as emulator,
        Supervisor(
            api_key="sigmic_" + "0" * 64,
            base_url=emulator.url,
            ledger=f"sqlite:///{tmp_path / 'ledger'}",
            registry=None,
        ) as supervisor,
    ):
        emulator.fault("create", Fault("lost_answer"))
        emulator.fault("create", Fault("swapped"))
        answers = await ask_all(supervisor, [read, read])
        told = {task.message: task for task in emulator.tasks.values()}
        assert answers == [emulator_answer(told[f"m-{number}"]) for number in range(2)]


def emulator_answer(task: Any) -> str:
    return str(task.turn.steps[-1].data["finalResponse"])
