"""The HTTP server: takes requests, notes them, lets faults befall them, sees their answers out."""

from aiohttp import web

from sigmic_guard.emulator import control, delivery, routes, sse
from sigmic_guard.emulator.answers import Answer, Refusal
from sigmic_guard.emulator.api import Api
from sigmic_guard.emulator.bells import Bells
from sigmic_guard.emulator.faults import SPOILING, Fault, FaultBox
from sigmic_guard.emulator.log import RequestLog, RequestSeen
from sigmic_guard.emulator.routes import Call
from sigmic_guard.emulator.service import Service
from sigmic_guard.emulator.sse import Feed
from sigmic_guard.emulator.turn import Step

LOG_BELL = "log"
"""Rung when the request log changes."""
CLOSING_BELL = "closing"
"""Rung when the server closes, to end what would wait for ever."""

_STREAM_FAULTS = SPOILING | {"malformed", "oversize"}
_SHUTDOWN_TIMEOUT = 0.2


class Server:
    """One listening socket."""

    def __init__(
        self,
        api: Api,
        service: Service,
        controlled: control.Controlled,
        faults: FaultBox,
        log: RequestLog,
        bells: Bells,
        *,
        heartbeat: float,
        wrap_events: bool,
    ) -> None:
        """Listen to nothing yet."""
        self._log = log
        self._api = api
        self._service = service
        self._controlled = controlled
        self._faults = faults
        self._bells = bells
        self._heartbeat = heartbeat
        self._wrap = wrap_events
        self._closing = False
        self._runner: web.ServerRunner | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which the kernel chose if 0 was asked for."""
        low_level = web.Server(
            self._serve, handler_cancellation=True, access_log=None, lingering_time=0.0
        )
        runner = web.ServerRunner(low_level, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=4096, reuse_address=True).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening and end every open answer at once."""
        self._closing = True
        self._bells.ring_all()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._handle(request)
        except ConnectionError:  # its reader has left, before aiohttp would cancel this
            return delivery.drop(request)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path.startswith(control.PREFIX):
            try:
                return delivery.whole(await control.perform(self._controlled, request))
            except Refusal as refusal:
                return delivery.whole(refusal.answer())
        call = routes.resolve(request.method, path)
        seen = RequestSeen(
            method=request.method,
            route=call.route,
            resource=call.resource,
            path=request.raw_path,
            task_id=call.task_id or None,
            at=self._service.clock(),
        )
        self._log.add(seen)
        self._bells.ring(LOG_BELL)
        return await self._respond(request, call, seen)

    async def _respond(
        self, request: web.BaseRequest, call: Call, seen: RequestSeen
    ) -> web.StreamResponse:
        latency, fault = self._faults.draw(call.route)
        if latency:
            await self._bells.wait(CLOSING_BELL, latency)
        if fault is not None:
            return await self._spoil(request, call, seen, fault)
        result = await self._result(request, call, seen)
        if isinstance(result, Feed):
            return await self._stream(request, result, seen, None)
        self._note(seen, result)
        return delivery.whole(result)

    async def _spoil(
        self, request: web.BaseRequest, call: Call, seen: RequestSeen, fault: Fault
    ) -> web.StreamResponse:
        result = await self._result(request, call, seen) if fault.effective else None
        match fault.kind:
            case "reset_before":
                return delivery.reset(request)
            case "lost_answer":
                return delivery.drop(request)
            case "black_hole" | "black_hole_after":
                await self._bells.wait(CLOSING_BELL)
                return delivery.drop(request)
        if isinstance(result, Feed) and fault.kind in _STREAM_FAULTS:
            return await self._stream(request, result, seen, fault)
        if fault.kind == "swapped" and isinstance(result, Answer):
            if result.status == 200:
                result = self._api.swapped(request, call, result)
            self._note(seen, result)
            return delivery.whole(result)
        await request.release()
        replacement = delivery.replacement(fault)
        if replacement is not None:
            self._note(seen, replacement)
            return delivery.whole(replacement)
        if not isinstance(result, Answer):
            message = f"a {fault.kind} fault has no answer to spoil"
            raise TypeError(message)
        self._note(seen, result)
        return await delivery.broken(request, result, fault)

    async def _result(
        self, request: web.BaseRequest, call: Call, seen: RequestSeen
    ) -> Answer | Feed:
        try:
            result = await self._api.perform(request, call)
        except Refusal as refusal:
            # The rest of the body, so that the connection can be used again.
            await request.release()
            return refusal.answer()
        if isinstance(result, Answer) and result.task_id is not None:
            seen.task_id = result.task_id
        return result

    async def _stream(
        self, request: web.BaseRequest, feed: Feed, seen: RequestSeen, fault: Fault | None
    ) -> web.StreamResponse:
        outlet = delivery.StreamOutlet(request, fault)
        await outlet.open()
        seen.status = 200
        self._bells.ring(LOG_BELL)
        if fault is not None and fault.kind == "silent":
            await self._bells.wait(CLOSING_BELL)
            return delivery.drop(request)
        task = feed.task
        events = self._wire(feed.opening(self._service.clock()))
        beat_at = self._service.clock() + self._heartbeat
        while await outlet.send(events):
            now = self._service.clock()
            self._service.world.settle(task, now)
            events = self._wire(feed.fresh(now))
            if events:
                continue
            if feed.over or self._closing or task.id not in self._service.world.tasks:
                return await outlet.finish()
            if now >= beat_at:
                events = [sse.HEARTBEAT]
                beat_at = now + self._heartbeat
                continue
            await self._bells.wait(task.id, min(feed.next_at, beat_at) - now)
        return outlet.response

    def _wire(self, steps: list[Step]) -> list[bytes]:
        return [sse.wire(step, wrap=self._wrap) for step in steps]

    def _note(self, seen: RequestSeen, answer: Answer) -> None:
        seen.status = answer.status
        self._bells.ring(LOG_BELL)
