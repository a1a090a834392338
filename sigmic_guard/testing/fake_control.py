"""What a test sees of a :class:`~sigmic_guard.testing.FakeSigmic`, and says to it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sigmic_guard.sigmic.models import CreateRequest
from sigmic_guard.testing.fake_faults import Call, Faults, Gate, Reaction
from sigmic_guard.testing.fake_world import FakeWorld, script_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sigmic_guard.emulator import Fault, Script
    from sigmic_guard.testing.fake_stream import FakeStream
    from sigmic_guard.testing.fake_task import FakeTask


class Controls:
    """The truth, how tasks go, and what goes wrong.

    Scripts and faults are an :class:`~sigmic_guard.emulator.Emulator`'s.
    """

    def __init__(self, *, duration: float | None, answer: str, read_lag: float) -> None:
        #: Every request that arrived, in order: method, task id, time on the anyio clock.
        self.requests: list[Call] = []
        #: Whether ``aclose`` was called; requests are refused from then on.
        self.closed = False
        self._default_answer = answer
        self._world = FakeWorld(script_of(duration=duration, answer=answer))
        self._faults = Faults()
        self._streams: set[FakeStream] = set()
        self._in_flight: Counter[str] = Counter()
        self._peak: Counter[str] = Counter()
        self._world.service.past.begin(read_lag, ())  # there may be no event loop yet, and no task

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
    def created(self) -> list[str]:
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
        self.script_for(message, script)

    def script_for(self, match: str | Callable[[str], bool], script: Script) -> None:
        """Say how every turn goes that is begun with this message, or one the predicate accepts.

        It is the same :class:`~sigmic_guard.emulator.Script` that an ``Emulator`` takes.
        """
        self._world.service.scripts.add(match, script)

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

        - a :class:`~sigmic_guard.emulator.Fault`, as an ``Emulator`` takes it, of a kind that needs
          no bytes on a wire: ``latency, status, reset_before, lost_answer, black_hole,
          black_hole_after, lie, swapped``; how often it fires is for :meth:`fault`;
        - ``HANG``, ``LOST``, ``SWAPPED``, ``LIE``: short for the faults ``black_hole``,
          ``lost_answer``, ``swapped`` and ``lie``;
        - an exception, raised in place of an answer, without effect;
        - a number: seconds of latency for this call;
        - ``Answer(value)``: this answer, without effect;
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

    def fault(self, method: str, fault: Fault) -> None:
        """Arm a fault, as an ``Emulator`` does: it fires ``times`` times, or until it is cleared.

        Calls for which a reaction is planned pass it by. ``"*"`` is every method but ``"receive"``.

        :raises ValueError: there is no such method, the fault is not for it, or it is about bytes
            on the wire, which only an ``Emulator`` has.
        """
        self._faults.arm(method, fault)

    def clear_faults(self, method: str | None = None) -> None:
        """Disarm the faults that were set on this method, or all."""
        self._faults.clear(method)

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
