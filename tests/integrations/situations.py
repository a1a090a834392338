"""What a service may be in the middle of, and how its clients see that end."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from sigmic_guard.emulator import Fault, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sigmic_guard.emulator import Emulator
    from tests.integrations.client import Client
    from tests.integrations.hosts import Host, Service

#: The last event of a stream that the shutdown ends.
FAREWELL: Final = b'retry: 2000\nevent: shutdown\ndata: {"retry_after":2.0}\n\n'
#: Ten pieces a second.
CHATTY: Final = Script(duration=600, chunks=("piece ",) * 6000)
QUIET: Final = Script(hold=True, chunks=())


class Situation:
    """One client, in the middle of something."""

    script: ClassVar[Script] = QUIET
    #: How many tasks it has.
    tasks: ClassVar[int] = 1

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def question(self) -> str:
        return type(self).__name__

    async def open(self, emulator: Emulator) -> None:
        """Come into the middle of it."""
        emulator.script_for(self.question, self.script)
        await self.ask()

    async def ask(self) -> None:
        raise NotImplementedError

    async def check_shutdown(self, host: Host) -> None:
        """Fail unless the client learnt of the shutdown as it should have."""
        raise NotImplementedError


class Idle(Situation):
    """A connection that is kept alive."""

    tasks = 0

    async def ask(self) -> None:
        await self.client.get("/idle")
        await self.client.until(b"idle")

    async def check_shutdown(self, host: Host) -> None:
        await self.client.to_the_end()


class _Stream(Situation):
    path: ClassVar[str]

    async def ask(self) -> None:
        await self.client.get(f"{self.path}?q={self.question}")
        await self.client.until(b"event: history_done" if self.script is QUIET else b"piece")

    async def check_shutdown(self, host: Host) -> None:
        await self.client.to_the_end()
        assert self.client.status == 200
        assert self.client.body.endswith(FAREWELL), self.client.received
        assert self.client.body.count(FAREWELL) == 1
        assert self.client.complete


class QuietStream(_Stream):
    path = "/stream"


class ChattyStream(_Stream):
    path = "/stream"
    script = CHATTY


class _Stalled(_Stream):
    """A client that stops reading, while more is written than any buffer takes."""

    async def ask(self) -> None:
        await self.client.get(f"{self.path}?q={self.question}")
        await self.client.until(b"\r\n\r\n")


class StalledStream(_Stalled):
    path = "/flooded_stream"


class StalledGenerator(_Stalled):
    """Its generator stands at a ``yield``, and holds a block."""

    path = "/flooded_generator"


class QuietGenerator(_Stream):
    path = "/generated"


class ChattyGenerator(_Stream):
    path = "/generated"
    script = CHATTY


class ChattyEventSource(_Stream):
    path = "/event_source"
    script = CHATTY


class Run(Situation):
    """A handler awaits ``run()``, and does not read."""

    async def ask(self) -> None:
        await self.client.get(f"/run?q={self.question}")

    async def check_shutdown(self, host: Host) -> None:
        await self.client.to_the_end()
        assert self.client.status == 503, self.client.received
        assert "\r\nretry-after: 2\r\n" in self.client.head
        assert "\r\nconnection: close" in self.client.head


class Chat(Situation):
    """A websocket, whose handler awaits ``run()``."""

    async def ask(self) -> None:
        await self.client.connect("/chat")
        await self.client.say(self.question)

    async def check_shutdown(self, host: Host) -> None:
        await self.client.to_the_end()
        if not host.tells_websockets:
            return
        close = b"\x03\xf4"  # 1012, service restart
        assert close in self.client.received.partition(b"\r\n\r\n")[2], self.client.received


class Creating(Run):
    """A create is under way: the API has taken it, and answers slowly."""

    async def open(self, emulator: Emulator) -> None:
        emulator.fault("create", Fault("drip", seconds=0.004, times=1))
        await super().open(emulator)


#: The create comes last: its fault is for the next one, whosever that is.
SITUATIONS: Final[list[type[Situation]]] = [
    Idle,
    QuietStream,
    ChattyStream,
    QuietGenerator,
    ChattyGenerator,
    ChattyEventSource,
    Run,
    Chat,
    Creating,
]


async def _created(emulator: Emulator, count: int) -> None:
    await emulator.wait_for(lambda state: state["created"] >= count)


@asynccontextmanager
async def open_all(
    emulator: Emulator, service: Service, kinds: Sequence[type[Situation]] = SITUATIONS
) -> AsyncIterator[list[Situation]]:
    """Come into the middle of all of them; when the block is left they are hung up.

    Where the host serves no websockets, those are left out.
    """
    async with AsyncExitStack() as stack:
        situations: list[Situation] = []
        created = 0
        for kind in kinds:
            if kind is Chat and not service.host.websockets:
                continue
            situation = kind(await stack.enter_async_context(service.client()))
            await situation.open(emulator)
            created += situation.tasks
            await _created(emulator, created)
            situations.append(situation)
        yield situations
