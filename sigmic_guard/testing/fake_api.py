"""``FakeSigmic``: the remote system in memory, for tests that want no server and no waiting."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from sigmic_guard.emulator.answers import Refusal
from sigmic_guard.errors import ApiError, ConfigurationError, ConnectionFailed, ValidationError
from sigmic_guard.sigmic.models import CreateRequest, TaskInfo, TaskPage
from sigmic_guard.sigmic.responses import error_kind
from sigmic_guard.testing.fake_faults import (
    HANG,
    LOST,
    SWAPPED,
    Answer,
    Call,
    Faults,
    Gate,
    Reaction,
)
from sigmic_guard.testing.fake_stream import FakeStream
from sigmic_guard.testing.fake_world import OWNER, FakeWorld, script_of

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sigmic_guard.sigmic.api import ApprovalOutcome
    from sigmic_guard.testing.fake_task import FakeTask

_T = TypeVar("_T")


class FakeSigmic:
    """The Sigmic Task API in memory; give it to a ``Supervisor`` as its ``client``.

    It speaks the same protocol as the real client, on anyio alone: no sockets, no threads, no task
    or timer per remote task. Under trio's ``MockClock(autojump_threshold=0)`` an hour of remote
    work takes no time at all; on asyncio it runs in real time::

        async def test_the_answer():
            fake = FakeSigmic(duration=3600, answer="42")
            async with Supervisor(client=fake, ledger="memory:") as supervisor:
                result = await supervisor.run("What is the answer?")
            assert result.final_response == "42"
            assert not fake.live

    **The truth** is in :attr:`tasks`, :attr:`live`, :attr:`created` and :attr:`requests`.

    **Tasks** go as :meth:`script` says, or are pushed by hand: :meth:`complete`, :meth:`fail`,
    :meth:`cancel`, :meth:`ask`.

    **Faults** are planned with :meth:`on` and :meth:`always`, and requests are held at an exact
    point with :meth:`gate`. :meth:`until` waits for something without sleeping.

    :param duration: seconds a task runs; ``None``, the default: until it is pushed.
    :param latency: seconds a request takes, half of them before it takes effect. With none it still
        passes a checkpoint on either side, as a real one does.
    :param answer: what tasks answer, unless their script says something else.
    :param read_lag: seconds by which GET, list and streams that are opened lag behind what is: they
        tell how things were then, and ``delete`` answers 404 for what did not exist then. May be
        set later, too.
    :param delete_finished: the answer to a DELETE of a task that had ended, which the API leaves
        unspecified: an error to raise, or what ``delete`` returns.
    """

    base_url = "https://sigmic.test"
    credential_fingerprint = "fake"

    def __init__(
        self,
        *,
        duration: float | None = None,
        latency: float = 0.0,
        answer: str = "the answer",
        read_lag: float = 0.0,
        delete_finished: ApiError | bool | None = None,
    ) -> None:
        self.latency = latency
        if delete_finished is None:
            delete_finished = ValidationError(
                "the task has ended already", code="VALIDATION_ERROR", status=409
            )
        self.delete_finished = delete_finished
        #: Every request that arrived, in order: method, task id, time on the anyio clock.
        self.requests: builtins.list[Call] = []
        #: Whether :meth:`aclose` was called; requests are refused from then on.
        self.closed = False
        self._default_answer = answer
        self._world = FakeWorld(script_of(duration=duration, answer=answer))
        self._faults = Faults()
        self._streams: set[FakeStream] = set()
        self._in_flight: Counter[str] = Counter()
        self._peak: Counter[str] = Counter()
        self.read_lag = read_lag

    # --- the truth --------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, FakeTask]:
        """All tasks ever created, by id, oldest first."""
        self._world.settle()
        return self._world.tasks

    @property
    def live(self) -> frozenset[str]:
        """The ids of the tasks that run now, and cost money."""
        self._world.settle()
        return frozenset(self._world.model.live)

    @property
    def created(self) -> builtins.list[str]:
        """The ids of all tasks, oldest first."""
        return list(self._world.tasks)

    @property
    def open_streams(self) -> int:
        """How many event streams are open."""
        return len(self._streams)

    def count(self, method: str, task_id: str | None = None) -> int:
        """Return how many requests arrived, of one task or of all."""
        return sum(
            call.method == method and task_id in {None, call.task_id} for call in self.requests
        )

    def in_flight(self, method: str) -> int:
        """Return how many requests wait for their answer."""
        return self._in_flight[method]

    def peak(self, method: str) -> int:
        """Return how many requests ever waited for their answers at once."""
        return self._peak[method]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition()`` is true.

        It is asked whenever a request arrives or ends, and whenever a task changes, and has to
        depend on nothing else: ``await fake.until(lambda: fake.count("delete") == 3)``.
        """
        while not condition():
            now = self._world.settle()
            await self._world.changed.wait(self._world.model.next_due() - now)

    # --- how tasks go -----------------------------------------------------------------------

    def script(
        self,
        message: str,
        *,
        duration: float | None = None,
        fail: str | None = None,
        answer: str | None = None,
        chunks: Sequence[str] = (),
        approval: str | None = None,
    ) -> None:
        """Say how every turn goes that is begun with exactly this message, follow-ups included.

        :param duration: seconds; ``None``, the default: until it is pushed.
        :param fail: it fails with this error when its time is over.
        :param answer: the final response; default: the chunks, or what the fake answers.
        :param chunks: what it says meanwhile, evenly spread over the duration.
        :param approval: a tool that it asks for before it begins to work.
        """
        if answer is None:
            answer = "".join(chunks) if chunks else self._default_answer
        script = script_of(
            duration=duration, answer=answer, chunks=tuple(chunks), fail=fail, approval=approval
        )
        self._world.service.scripts.add(message, script)

    def add(self, message: str = "created by something else", **env: str) -> str:
        """Create a task as somebody else would, without a request, and return its id."""
        return self._world.create(CreateRequest(message=message, env=env)).id

    def complete(self, task_id: str, text: str | None = None) -> bool:
        """Let a task complete now; ``False`` if it had ended already, which changes nothing."""
        return self._world.complete(task_id, text)

    def fail(self, task_id: str, error: str = "the agent failed") -> bool:
        """Let a task fail now; ``False`` if it had ended already, which changes nothing."""
        model, now = self._world.tasks[task_id].now()
        return self._world.model.fail(model, error, now)

    def cancel(self, task_id: str) -> bool:
        """Cancel a task as somebody else would; ``False`` if it had ended already."""
        return self._world.model.cancel(*self._world.tasks[task_id].now())

    def ask(self, task_id: str, tool: str = "shell") -> None:
        """Let a running task ask for approval now; once it has it, its work begins anew."""
        self._world.ask(self._world.tasks[task_id], tool)

    def drop_streams(self, task_id: str | None = None) -> None:
        """Break the open event streams, of one task or of all."""
        for stream in [s for s in self._streams if task_id in {None, s.task.id}]:
            stream.snap("the connection was reset")

    @property
    def read_lag(self) -> float:
        """Seconds by which reads lag behind what is."""
        return self._world.service.past.lag

    @read_lag.setter
    def read_lag(self, seconds: float) -> None:
        self._world.settle()
        self._world.service.past.begin(seconds, self._world.model.tasks.values())

    # --- what goes wrong --------------------------------------------------------------------

    def on(self, method: str, *reactions: Reaction | None) -> None:
        """Plan one reaction per call of ``method`` to come; afterwards all goes well again.

        A reaction is

        - an exception, raised in place of an answer, without effect;
        - a number: seconds of latency for this call;
        - ``HANG``: no effect and no answer, until the caller's time-out;
        - ``LOST``: it takes effect, and the answer is lost: ``ConnectionFailed(sent=True)``;
        - ``SWAPPED``: ``get`` tells of another task, and ``create`` gives the id of another that
          lives, of the one that was active last;
        - ``Answer(value)``: this answer, without effect; ``LIE`` is ``delete``'s ``Answer(True)``;
        - ``None``: all goes well;
        - a function, plain or async, that gets the :class:`Call` and returns one of these. It runs
          before the effect, so that it can push the task to a race:
          ``fake.on("delete", lambda call: fake.complete(call.task_id) and None)``.

        The method ``"receive"`` is that of an open event stream: there ``HANG`` is silence.
        """
        self._faults.on(method, *reactions)

    def always(self, method: str, reaction: Reaction | None) -> None:
        """Set the reaction to every call for which none is planned; ``None`` takes it back."""
        self._faults.always(method, reaction)

    def gate(self, method: str, *, answer: bool = False) -> Gate:
        """Hold all requests of ``method`` before they take effect, until ``gate.open()``.

        ``await gate.entered.wait()`` waits until the first one is there. The caller's time-out
        goes on.

        :param answer: hold the answers instead: what was asked for has taken effect by then.
        """
        return self._faults.gate(method, answer=answer)

    def reopen(self) -> None:
        """Take requests again after :meth:`aclose`: the remote system outlives its clients."""
        self.closed = False

    # --- the protocol: sigmic_guard.sigmic.api.TaskApi ----------------------------------------

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        """Create a task and return its id."""
        if request.files and (request.env or request.secrets):
            raise ConfigurationError("files cannot be combined with env or secrets")
        return await self._request("create", None, timeout, lambda: self._world.create(request).id)

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        """Read a task."""
        return await self._request("get", task_id, timeout, lambda: self._world.detail(task_id))

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        """Read one page of the list, most recent activity first."""
        return await self._request("list", None, timeout, lambda: self._world.page(limit, offset))

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        """Cancel a task."""

        def effect() -> bool:
            if self._world.service.cancel(OWNER, task_id):
                return True
            if isinstance(self.delete_finished, bool):
                return self.delete_finished
            raise copy.copy(self.delete_finished)

        return await self._request("delete", task_id, timeout, effect)

    async def send(
        self,
        task_id: str,
        message: str,
        *,
        files: Sequence[Path] = (),  # noqa: ARG002 - what is in them makes no difference here
        timeout: float,
    ) -> str:
        """Send a follow-up message: a task that had ended goes on, unless it was cancelled."""

        def effect() -> str:
            self._world.send(task_id, message)
            return "running"

        return await self._request("send", task_id, timeout, effect)

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        """Decide on the tool call that the task asks for."""

        def effect() -> bool:
            approved = self._world.service.approve(OWNER, task_id, call_id, outcome)
            self._world.tasks[task_id].approvals.append(outcome)
            return approved

        return await self._request("approve", task_id, timeout, effect)

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> FakeStream:
        """Open the event stream."""

        def effect() -> FakeStream:
            feed = self._world.service.stream(OWNER, task_id)
            stream = FakeStream(
                self._world.tasks[task_id],
                feed,
                silence=silence,
                reaction=lambda: self._faults.reaction_to(
                    Call("receive", task_id, anyio.current_time())
                ),
                closed=self._streams.discard,
            )
            self._streams.add(stream)
            return stream

        return await self._request("stream", task_id, timeout, effect)

    async def aclose(self) -> None:
        """Break the open streams and refuse further requests; the tasks run on, as ever."""
        self.closed = True
        for stream in tuple(self._streams):
            stream.snap("the client was closed")

    # --- one request ------------------------------------------------------------------------

    async def _request(
        self, method: str, task_id: str | None, timeout: float, effect: Callable[[], _T]
    ) -> _T:
        if task_id in {"", ".", ".."}:
            raise ConfigurationError(f"{task_id!r} cannot be a task's id")
        if self.closed:
            message = "this FakeSigmic was closed; reopen() it to use it with another supervisor"
            await checkpoint()
            raise ConnectionFailed(message, sent=False)
        call = Call(method, task_id, anyio.current_time())
        self.requests.append(call)
        self._world.changed.fire()
        with self._counted(method), anyio.move_on_after(timeout):
            return await self._answer(call, effect)
        raise ConnectionFailed(
            f"no answer to {method} within {timeout:g} s", sent=True, timed_out=True
        )

    async def _answer(self, call: Call, effect: Callable[[], _T]) -> _T:
        await self._faults.pass_gate(call.method, answer=False)
        reaction = await self._faults.reaction_to(call)
        if reaction is HANG:
            await anyio.sleep_forever()
        latency = reaction if isinstance(reaction, int | float) else self.latency
        await anyio.sleep(latency / 2)
        self._world.settle()
        failure: ApiError | None = None
        result: _T | None = None
        try:
            result = reaction.value if isinstance(reaction, Answer) else effect()
            if reaction is SWAPPED:
                result = cast("_T", self._world.of_another(call, result))
        except Refusal as refusal:
            failure = error_kind(refusal.status)(
                refusal.message, code=refusal.code, status=refusal.status
            )
        except ApiError as error:
            failure = error
        await self._faults.pass_gate(call.method, answer=True)
        await anyio.sleep(latency / 2)
        if reaction is LOST:
            raise ConnectionFailed(f"the answer to {call.method} was lost", sent=True)
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]  # an effect that returned

    @contextmanager
    def _counted(self, method: str) -> Iterator[None]:
        self._in_flight[method] += 1
        self._peak[method] = max(self._peak[method], self._in_flight[method])
        try:
            yield
        finally:
            self._in_flight[method] -= 1
            self._world.changed.fire()
