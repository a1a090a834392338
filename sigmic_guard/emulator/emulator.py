"""`Emulator`: a whole Sigmic server on this machine, steered from Python."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from sigmic_guard.emulator import answers
from sigmic_guard.emulator.api import Api
from sigmic_guard.emulator.bells import Bells
from sigmic_guard.emulator.faults import Fault, FaultBox
from sigmic_guard.emulator.log import RequestLog, RequestSeen
from sigmic_guard.emulator.past import Past
from sigmic_guard.emulator.script import Script, ScriptBook
from sigmic_guard.emulator.server import LOG_BELL, Server
from sigmic_guard.emulator.service import DeleteFinished, Service
from sigmic_guard.emulator.world import Task, World

SLICE = 200
"""How many tasks change before others get their turn in the event loop: 1 to 2 ms."""


class Emulator:
    """A Sigmic server for `async with`. Use it in the event loop that entered it.

    Args:
        host: where to listen.
        port: on which port; 0 lets the kernel choose.
        script: how tasks go that nothing else scripts.
        api_key: the key, or keys, that are valid; None accepts every well-formed credential.
        heartbeat: seconds between two heartbeats of a stream.
        seed: of the faults' probabilities.
        delete_finished: what DELETE answers for a task that has ended: `conflict` (409), `ok` (200,
            "Task already finished"), `lie` (200, "Task cancelled") or `not_found` (404). None of
            them changes the task.
        wrap_events: payloads of stream events are `{"type": …, "data": …}`.
        read_lag: seconds by which GET, the list and streams that are opened lag behind what is; for
            DELETE a task does not exist before. For tests: it costs memory for each change.

    Raises:
        ValueError: `heartbeat` is not positive, `read_lag` is negative, or there is no such
            `delete_finished`.
        OSError: on entering, if the port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        script: Script = Script(),  # noqa: B008 - frozen
        api_key: str | Collection[str] | None = None,
        heartbeat: float = 15.0,
        seed: int = 0,
        delete_finished: DeleteFinished = "conflict",
        wrap_events: bool = False,
        read_lag: float = 0.0,
    ) -> None:
        """Prepare; nothing is opened before `async with`."""
        if not heartbeat > 0:
            raise ValueError(f"heartbeat is a positive number of seconds, not {heartbeat!r}")
        self.url = ""
        self._host = host
        self._port = port
        self._bells = Bells()
        self._epoch = 0.0
        self._timer: asyncio.Handle | None = None
        self._timer_at = float("inf")
        self._log = RequestLog()
        self._faults = FaultBox(seed)
        self._past = Past()
        self._past.begin(read_lag, ())
        self._service = Service(World(self._changed), ScriptBook(script), self._past, self._now)
        self._server = Server(
            Api(
                self._service,
                accepted={api_key} if isinstance(api_key, str) else api_key,
                delete_finished=delete_finished,
            ),
            self._service,
            self,
            self._faults,
            self._log,
            self._bells,
            heartbeat=heartbeat,
            wrap_events=wrap_events,
        )

    async def __aenter__(self) -> Self:
        """Listen."""
        # One clock: it agrees with the wall clock at the start, and then never jumps.
        self._epoch = time.time() - asyncio.get_running_loop().time()
        port = await self._server.open(self._host, self._port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every open answer and stop listening. The state can still be read."""
        if self._timer is not None:
            self._timer.cancel()
        await self._server.close()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All tasks by id, as they are now. Their times are seconds since 1970."""
        self._world.advance(self._now())
        return self._world.tasks

    @property
    def live(self) -> int:
        """How many tasks are pending, running or awaiting approval now."""
        self._world.advance(self._now())
        return len(self._world.live)

    @property
    def requests(self) -> Sequence[RequestSeen]:
        """The last 200,000 requests to the API, oldest first; control requests left out."""
        return self._log.recent

    def count(self, method: str | None = None, route: str | None = None) -> int:
        """How many requests came, control requests left out.

        Args:
            method: only those with this HTTP method.
            route: only those for this route (such as `delete`), or for this resource, which is one
                of `tasks, task, stream, messages, approve`.
        """
        return self._log.count(method, route)

    def state(self, *, full: bool = False) -> dict[str, Any]:
        """What GET /_emulator/state answers; `full` adds every task as the API shows it."""
        self._world.advance(self._now())
        state = self._state()
        if full:
            now = self._now()
            state["all"] = [answers.task_detail(task, now) for task in self._world.tasks.values()]
        return state

    def script_for(self, match: str | Callable[[str], bool], script: Script) -> None:
        """Script the tasks created from now on with this message, or one the predicate accepts.

        A create whose env carries `EMULATOR_SCRIPT`, the JSON of `Script` fields, overrides this.
        """
        self._service.scripts.add(match, script)

    def set_script(self, script: Script) -> None:
        """Replace the default script for tasks created from now on."""
        self._service.scripts.default = script

    def fault(self, route: str, fault: Fault) -> None:
        """Arm a fault on `create, get, list, delete, stream, send, approve` or `*`.

        Raises:
            ValueError: there is no such route, or the fault is not for it.
        """
        self._faults.add(route, fault)

    def clear_faults(self, route: str | None = None) -> None:
        """Disarm the faults that were set on this route, or all."""
        self._faults.clear(route)

    def complete(self, task_id: str, text: str | None = None) -> bool:
        """Complete a task by hand; `text`, if given, becomes its final response.

        False if it had ended already, which changes nothing. Raises KeyError for an unknown id.
        """
        return self._world.complete(self._world.tasks[task_id], text, self._now())

    def fail(self, task_id: str, error: str) -> bool:
        """Fail a task by hand; returns and raises as `complete` does."""
        return self._world.fail(self._world.tasks[task_id], error, self._now())

    def cancel(self, task_id: str) -> bool:
        """Cancel a task as someone else would; returns and raises as `complete` does."""
        return self._world.cancel(self._world.tasks[task_id], self._now())

    async def wait_for(
        self, predicate: Callable[[dict[str, Any]], object], *, timeout: float = 30.0
    ) -> None:
        """Return as soon as `predicate(self.state())` holds; looks upon each change, never polls.

        Raises:
            TimeoutError: it did not hold within `timeout` seconds; the message has the last state.
        """
        try:
            async with asyncio.timeout(timeout):
                while not predicate(self._state()):
                    await self._bells.wait(LOG_BELL)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout:g} s; the state is {self.state()}") from None

    def reset(self) -> None:
        """Forget every task, request, fault and script; open streams end."""
        self._service.world = World(self._changed)
        self._past.clear()
        self._service.scripts.reset()
        self._faults.clear()
        self._log.clear()
        self._bells.ring_all()

    def _state(self) -> dict[str, Any]:
        """The state up to the last sweep, which is at most some slices behind the clock."""
        world = self._world
        return {
            "tasks": {"total": len(world.tasks), "live": len(world.live), **world.counts},
            "live_ids": list(world.live),
            "requests": dict(self._log.by_route),
            "created": len(world.tasks),
            "deletes_received": self._log.by_route["delete"],
            "duplicates": dict(world.duplicates),
        }

    @property
    def _world(self) -> World:
        return self._service.world

    def _now(self) -> float:
        return self._epoch + time.monotonic()

    def _changed(self, task: Task) -> None:
        self._past.note(task)
        self._bells.ring(task.id)
        self._bells.ring(LOG_BELL)
        self._arm()

    def _arm(self) -> None:
        """Have the one timer fire when the next task changes by itself."""
        due = self._world.next_due()
        if due >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_at(due - self._epoch, self._sweep)

    def _sweep(self) -> None:
        """Let the tasks change whose time has come, a slice at a time."""
        self._timer_at = float("inf")
        self._world.advance(self._now(), SLICE)
        self._arm()
