"""The way of a request to the remote system and back; what was sent arrives without its sender."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from anyio import Event, sleep

from sigmic_guard.errors import ConnectionFailed, ValidationError
from sigmic_guard.supervisor.ground.marking import MARKER
from tests.crash.program import LOST, REFUSED
from tests.crash.worlds import Gateway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from anyio.abc import TaskGroup

    from sigmic_guard.sigmic import CreateRequest
    from sigmic_guard.sigmic.api import ApprovalOutcome, EventStream
    from sigmic_guard.sigmic.models import TaskInfo, TaskPage
    from sigmic_guard.sigmic.sse import ServerSentEvent
    from sigmic_guard.testing import FakeSigmic
    from tests.crash.life import Life
    from tests.crash.worlds import World

T = TypeVar("T")


class _Answer(Generic[T]):
    """What comes back."""

    def __init__(self) -> None:
        self.there = Event()
        self.value: T
        self.error: Exception | None = None

    def open(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value


class Late(StrEnum):
    """What becomes of a request that was on its way when its sender died."""

    NEVER = "never"
    AT_ONCE = "at_once"
    #: A create or a follow-up arrives while the server can still be at work on it: within the
    #: create's time-out.
    SLOWLY = "slowly"
    #: When it was proven not to exist: a stray.
    AFTER_THE_PROOF = "after_the_proof"


class Network:
    """Carries requests in tasks that belong to no process.

    :param delay: the next of the seconds that a way takes.
    :param create_timeout: seconds that a create may take.
    :param world: whose gateway stands on the way.
    """

    def __init__(
        self,
        fake: FakeSigmic,
        group: TaskGroup,
        delay: Callable[[], float],
        late: Late,
        create_timeout: float,
        world: World,
    ) -> None:
        self.fake = fake
        self._group = group
        self._delay = delay
        self._late = late
        self._lateness = {Late.SLOWLY: 0.6, Late.AFTER_THE_PROOF: 10.0}.get(late, 0.0)
        self._lateness *= create_timeout
        self._world = world
        self._gateways: dict[Life, Gateway] = {}
        #: Creates that were sent, by intent id, and that arrived, by message.
        self.sent: Counter[str] = Counter()
        self.arrived: Counter[str] = Counter()
        #: Ids that were asked to be deleted, by whom.
        self.deletes: list[tuple[Life, str]] = []
        #: Creates and follow-ups that are under way.
        self.starting = 0

    async def request(self, life: Life, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        """Send a request for a process, and wait for its answer."""
        await life.step(f"about to send a {name}")
        answer = _Answer[T]()
        self._group.start_soon(self._carry, life, name, effect, answer)
        await life.step(f"having sent a {name}")
        await answer.there.wait()
        await life.step(f"at the answer to a {name}")
        return answer.open()

    async def _carry(
        self, life: Life, name: str, effect: Callable[[], Awaitable[T]], answer: _Answer[T]
    ) -> None:
        creates = name.startswith("create")
        starts = creates or name == "follow-up"
        self.starting += starts
        try:
            await sleep(self._delay())
            if not life.alive:
                if self._late is Late.NEVER:
                    return
                if creates or (starts and self._late is Late.SLOWLY):
                    await sleep(self._lateness)
            gateway = self._gateways.setdefault(life, Gateway(self._world))
            try:
                gateway.answer(name, after_effect=False)
                answer.value = await effect()
                gateway.answer(name, after_effect=True)
            except Exception as error:
                answer.error = error
        finally:
            self.starting -= starts
        life.mark(f"a {name} took effect")
        await sleep(self._delay())
        answer.there.set()


class MortalApi:
    """The remote system as one process sees it."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network = network
        self._fake = network.fake
        self._life = life
        self.base_url = self._fake.base_url
        self.credential_fingerprint = self._fake.credential_fingerprint

    async def create(self, request: CreateRequest, *, timeout: float) -> str:
        network, message = self._network, request.message

        async def effect() -> str:
            network.arrived[message] += 1
            if message == REFUSED:
                raise ValidationError("no", code="VALIDATION_ERROR", status=400)
            task_id = await self._fake.create(request, timeout=timeout)
            if message == LOST:
                raise ConnectionFailed("the answer was lost", sent=True)
            return task_id

        if self._life.alive:
            network.sent[request.env.get(MARKER, message)] += 1
        return await network.request(self._life, f"create of {message!r}", effect)

    async def get(self, task_id: str, *, timeout: float) -> TaskInfo:
        return await self._network.request(
            self._life, "get", lambda: self._fake.get(task_id, timeout=timeout)
        )

    async def list(self, *, limit: int = 100, offset: int = 0, timeout: float) -> TaskPage:
        return await self._network.request(
            self._life,
            "list",
            lambda: self._fake.list(limit=limit, offset=offset, timeout=timeout),
        )

    async def delete(self, task_id: str, *, timeout: float) -> bool:
        if self._life.alive:
            self._network.deletes.append((self._life, task_id))
        return await self._network.request(
            self._life, "delete", lambda: self._fake.delete(task_id, timeout=timeout)
        )

    async def send(
        self,
        task_id: str,
        message: str,
        *,
        files: Sequence[Path] = (),
        timeout: float,
    ) -> str:
        return await self._network.request(
            self._life,
            "follow-up",
            lambda: self._fake.send(task_id, message, files=files, timeout=timeout),
        )

    async def approve(
        self, task_id: str, call_id: str, outcome: ApprovalOutcome, *, timeout: float
    ) -> bool:
        return await self._network.request(
            self._life,
            "approval",
            lambda: self._fake.approve(task_id, call_id, outcome, timeout=timeout),
        )

    async def stream(self, task_id: str, *, timeout: float, silence: float) -> EventStream:
        stream = await self._network.request(
            self._life,
            "stream",
            lambda: self._fake.stream(task_id, timeout=timeout, silence=silence),
        )
        return _MortalStream(stream, self._life)

    async def aclose(self) -> None:
        """Leave the remote system to the next process."""


class _MortalStream:
    """An open stream, whose every answer is a step."""

    def __init__(self, inner: EventStream, life: Life) -> None:
        self._inner = inner
        self._life = life

    async def receive(self) -> Sequence[ServerSentEvent]:
        events = await self._inner.receive()
        await self._life.step("at an event of a stream")
        return events

    def close(self) -> None:
        self._inner.close()
