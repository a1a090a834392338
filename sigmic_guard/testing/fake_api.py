"""``FakeSigmic``: the remote system in memory, for tests that want no server and no waiting."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from sigmic_guard.emulator import Fault
from sigmic_guard.emulator.answers import Refusal
from sigmic_guard.emulator.service import check_delete_finished
from sigmic_guard.errors import ConfigurationError, ConnectionFailed
from sigmic_guard.testing.fake_control import Controls
from sigmic_guard.testing.fake_faults import Answer, Call, refused, spoil
from sigmic_guard.testing.fake_stream import FakeStream
from sigmic_guard.testing.fake_world import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sigmic_guard.emulator.service import DeleteFinished
    from sigmic_guard.errors import ApiError
    from sigmic_guard.sigmic.api import ApprovalOutcome
    from sigmic_guard.sigmic.models import CreateRequest, TaskInfo, TaskPage

_T = TypeVar("_T")


class FakeSigmic(Controls):
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

    **Tasks** go as :meth:`script` or :meth:`script_for` says, or are pushed by hand:
    :meth:`complete`, :meth:`fail`, :meth:`cancel`, :meth:`ask`.

    **Faults** are planned with :meth:`on` and :meth:`always`, or armed with :meth:`fault`, and
    requests are held at an exact
    point with :meth:`gate`. :meth:`until` waits for something without sleeping.

    :param duration: seconds a task runs; ``None``, the default: until it is pushed.
    :param latency: seconds a request takes, half of them before it takes effect. With none it still
        passes a checkpoint on either side, as a real one does.
    :param answer: what tasks answer, unless their script says something else.
    :param read_lag: seconds by which GET, list and streams that are opened lag behind what is: they
        tell how things were then, and ``delete`` answers 404 for what did not exist then. May be
        set later, too.
    :param delete_finished: what ``delete`` does with a task that had ended, which the API leaves
        unspecified: ``"conflict"`` (409, the default), ``"ok"`` (``False``), ``"lie"`` (``True``)
        or ``"not_found"`` (404). May be set later, too.
    :raises ValueError: ``delete_finished`` is none of them.
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
        delete_finished: DeleteFinished = "conflict",
    ) -> None:
        super().__init__(duration=duration, answer=answer, read_lag=read_lag)
        self.latency = latency
        self.delete_finished = check_delete_finished(delete_finished)

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
            return self._world.service.delete(OWNER, task_id, self.delete_finished)

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
        fault = reaction if isinstance(reaction, Fault) else None
        latency = reaction if isinstance(reaction, int | float) else self.latency
        await anyio.sleep(latency / 2)
        self._world.settle()
        failure: ApiError | None = None
        result: _T | None = None
        try:
            result = reaction.value if isinstance(reaction, Answer) else effect()
            if fault is not None and fault.kind == "swapped":
                result = cast("_T", self._world.of_another(call, result))
        except Refusal as refusal:
            failure = refused(refusal)
        await self._faults.pass_gate(call.method, answer=True)
        await anyio.sleep(latency / 2)
        if fault is not None:
            await spoil(fault, call)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # or its own traceback would hold it, and only the collector free it
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
