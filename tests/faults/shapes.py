"""How users come upon each route: small programs whose end is a word.

A word is the name of the error that came out, or ``ok``; ``waits`` where the caller would still
wait, which only the task's deadline or the shutdown would end; ``no answer`` where the result of a
completed task lacks what the agent said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from anyio import move_on_after

from sigmic_guard import CancelResult, RemoteTask, SigmicGuardError, State
from sigmic_guard.emulator import Fault, Script
from sigmic_guard.sigmic import CreateRequest, SigmicClient
from tests.faults.witness import KEY, Witness, keyed_options

if TYPE_CHECKING:
    from sigmic_guard import Supervisor
    from sigmic_guard.emulator import Emulator

#: Seconds after which a caller who waits for a task that has long ended is called waiting.
MAX_SECONDS: Final = 2.5
#: The same for one who should have been told, on a busy machine.
MORE_SECONDS: Final = 20.0

HOLD: Final = Script(duration=0.0, hold=True)
#: It begins when its stream is open, on a loaded machine too.
BEGINS_LATER: Final = Script(duration=0.02, pending=0.2)
ASK: Final = Script(duration=0.0, approval="shell")
LOST: Final = Fault("lost_answer", times=1)


class NoAnswer(Exception):
    """The task completed, and what the agent said is not known."""


class Stage:
    """An emulator and a supervisor, and the fault that waits for its route."""

    def __init__(
        self,
        emulator: Emulator,
        supervisor: Supervisor,
        witness: Witness,
        route: str,
        fault: Fault,
    ) -> None:
        self.emulator = emulator
        self.supervisor = supervisor
        self.witness = witness
        self._route = route
        self._fault = fault

    def spoil(self) -> None:
        """Arm the fault."""
        self.emulator.fault(self._route, self._fault)

    async def ending(self, shape: Shape, *, waits: bool = False) -> str:
        """Run a shape and name its end.

        :param waits: it may wait for ever, so that waiting for it longer shows nothing more.
        """
        try:
            with move_on_after(MAX_SECONDS if waits else MORE_SECONDS) as scope:
                await shape(self)
        except SigmicGuardError as error:
            self.witness.catch(error)
            return type(error).__name__
        except NoAnswer:
            return "no answer"
        return "waits" if scope.cancelled_caught else "ok"

    async def foreign(self) -> str:
        """The id of a task that something else created."""
        async with SigmicClient(KEY, self.emulator.url) as client:
            return await client.create(CreateRequest(message="foreign"), timeout=10)


Shape = Callable[[Stage], Awaitable[None]]


async def create_scoped(stage: Stage) -> None:
    """A block around a task that completes by itself."""
    stage.spoil()
    async with stage.supervisor.task("scoped", **keyed_options()) as task:
        stage.witness.meet(task, await task.result())


async def create_run(stage: Stage) -> None:
    """One call."""
    stage.spoil()
    stage.witness.meet(await stage.supervisor.run("run", **keyed_options()))


async def create_background(stage: Stage) -> None:
    """A background task that completes by itself."""
    stage.spoil()
    task = await stage.supervisor.start("background", **keyed_options())
    stage.witness.meet(task, await task.result())


async def get_adopt(stage: Stage) -> None:
    """Taking on a task that something else created: it has to be read first."""
    stage.emulator.set_script(HOLD)
    task_id = await stage.foreign()
    stage.spoil()
    task = await stage.supervisor.adopt(task_id)
    assert task.state is State.RUNNING


async def get_refresh(stage: Stage) -> None:
    """Reading a task by hand, within its block."""
    stage.emulator.set_script(HOLD)
    async with stage.supervisor.task("refresh") as task:
        stage.spoil()
        stage.witness.meet(await task.refresh())


async def get_background(stage: Stage) -> None:
    """The answer of a background task that completes by itself."""
    stage.spoil()
    task = await stage.supervisor.start("background")
    result = await task.result()
    if result.final_response is None:
        raise NoAnswer
    assert result.final_response == "Hello world"


async def list_background(stage: Stage) -> None:
    """The end of a background task, of which the list tells."""
    stage.spoil()
    task = await stage.supervisor.start("background")
    await task.wait()


async def list_unknown(stage: Stage) -> None:
    """A create whose answer was lost: the list finds the task."""
    stage.emulator.set_script(HOLD)
    stage.emulator.fault("create", LOST)
    stage.spoil()
    await stage.supervisor.start("background", **keyed_options())


async def delete_scoped(stage: Stage) -> None:
    """A block that is left while its task runs."""
    stage.emulator.set_script(HOLD)
    async with stage.supervisor.task("scoped", **keyed_options()) as task:
        stage.spoil()
    stage.witness.meet(task, await task.cancel())


async def delete_background(stage: Stage) -> None:
    """The cancel button."""
    stage.emulator.set_script(HOLD)
    task = await stage.supervisor.start("background", **keyed_options())
    stage.spoil()
    cancellation = await task.cancel()
    stage.witness.meet(task, cancellation, task.outcome)
    assert cancellation.result in set(CancelResult)


async def delete_drain(stage: Stage) -> None:
    """Tasks that are live when the supervisor is left."""
    stage.emulator.set_script(HOLD)
    for number in range(3):
        await stage.supervisor.start(f"background {number}", **keyed_options(number))
    stage.spoil()


async def stream_scoped(stage: Stage) -> None:
    """Reading what a task says, and then its result."""
    stage.emulator.set_script(BEGINS_LATER)
    stage.spoil()
    async with stage.supervisor.task("scoped", **keyed_options()) as task:
        said = ""
        async for event in task.events():
            stage.witness.meet(event)
            said += event.text
        result = await task.result()
        assert result.final_response == "Hello world"
        assert "Hello world".startswith(said)


async def stream_run(stage: Stage) -> None:
    """One call: it reads the stream to learn the end at once."""
    stage.emulator.set_script(BEGINS_LATER)
    stage.spoil()
    result = await stage.supervisor.run("run", **keyed_options())
    assert result.final_response == "Hello world"


async def send_scoped(stage: Stage) -> None:
    """A follow-up within the block."""
    async with stage.supervisor.task("scoped") as task:
        await task.result()
        stage.spoil()
        await task.send("again")
        await task.result()


async def send_adopted(stage: Stage) -> None:
    """A follow-up to a task that something else created, and that completed."""
    task_id = await stage.foreign()
    await stage.emulator.wait_for(lambda state: state["tasks"]["completed"])
    task = await stage.supervisor.adopt(task_id)
    stage.spoil()
    await task.send("again")
    await task.result()


async def approve_scoped(stage: Stage) -> None:
    """A decision on a tool call, within the block."""
    stage.emulator.set_script(ASK)
    async with stage.supervisor.task("scoped") as task:
        stage.spoil()
        await task.approve(await asked(task))
        await task.result()


async def asked(task: RemoteTask) -> str:
    """The tool call that the task waits for."""
    async with task.events() as events:
        async for event in events:
            if event.type == "tool_call" and event.data["status"] == "awaiting_approval":
                return str(event.data["callId"])
    raise AssertionError("it asked for nothing")


SHAPES: Final[dict[str, tuple[Shape, ...]]] = {
    "create": (create_scoped, create_run, create_background),
    "get": (get_adopt, get_refresh, get_background),
    "list": (list_background, list_unknown),
    "delete": (delete_scoped, delete_background, delete_drain),
    "stream": (stream_scoped, stream_run),
    "send": (send_scoped, send_adopted),
    "approve": (approve_scoped,),
}
"""By route."""
