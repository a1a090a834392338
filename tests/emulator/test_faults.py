"""How each fault looks from the client's side, and whether the request took effect."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sigmic_guard.emulator import Emulator, Fault, Script

if TYPE_CHECKING:
    from tests.emulator.conftest import Api, Start

TASKS = "/api/v1/tasks"
MESSAGE = {"message": "hello"}


async def post(api: Api) -> tuple[aiohttp.ClientResponse, bytes]:
    async with api.session.post(api.emulator.url + TASKS, json=MESSAGE) as response:
        return response, await response.read()


# --- answers in good order ------------------------------------------------------------------------


async def test_status(api: Api) -> None:
    """A status fault answers the failure envelope with its code and Retry-After, without effect."""
    api.emulator.fault("create", Fault("status", status=503, retry_after=1, times=1))
    response, body = await post(api)
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert b'"code":"SERVER_ERROR"' in body
    assert not api.emulator.tasks
    assert (await post(api))[0].status == 200


@pytest.mark.parametrize(
    "fault, status, code",
    [
        (Fault("status", code="FORBIDDEN"), 403, "FORBIDDEN"),
        (Fault("status", code="ORIGIN_NOT_ALLOWED"), 403, "ORIGIN_NOT_ALLOWED"),
        (Fault("status", code="INVALID_TOKEN"), 401, "INVALID_TOKEN"),
        (Fault("status", code="JWT_NOT_CONFIGURED"), 501, "JWT_NOT_CONFIGURED"),
        (Fault("status", status=404), 404, "NOT_FOUND"),
        (Fault("status", status=429), 429, "RATE_LIMITED"),
        (Fault("status"), 500, "SERVER_ERROR"),
        (Fault("refused_200"), 200, "VALIDATION_ERROR"),
        (Fault("refused_200", code="ODD"), 200, "ODD"),
    ],
)
async def test_codes(api: Api, fault: Fault, status: int, code: str) -> None:
    """A code brings its status and a status its code; any pair can be had."""
    api.emulator.fault("*", fault)
    found, body = await api.call("GET", TASKS)
    assert (found, body["success"], body["error"]["code"]) == (status, False, code)


async def test_retry_after_as_a_date(api: Api) -> None:
    """Retry-After may be given as an HTTP date, which is sent as it is."""
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    api.emulator.fault("create", Fault("status", status=429, retry_after=date))
    assert (await post(api))[0].headers["Retry-After"] == date


async def test_html(api: Api) -> None:
    """An html fault is a gateway's error page."""
    api.emulator.fault("create", Fault("html", status=504))
    response, body = await post(api)
    assert (response.status, response.content_type) == (504, "text/html")
    assert body.startswith(b"<html>")
    assert not api.emulator.tasks


async def test_a_gateway_may_lie_about_an_effect(api: Api) -> None:
    """With `effect` the request is handled though the gateway says that it failed."""
    api.emulator.fault("create", Fault("html", effect=True))
    assert (await post(api))[0].status == 502
    assert len(api.emulator.tasks) == 1


async def test_redirect(api: Api) -> None:
    """A redirect names its location and has no effect."""
    api.emulator.fault("delete", Fault("redirect", location="http://elsewhere.test/x"))
    task_id = await api.create()
    url = f"{api.emulator.url}{TASKS}/{task_id}"
    async with api.session.delete(url, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "http://elsewhere.test/x")
    assert api.emulator.live == 1


@pytest.mark.parametrize(
    "fault, least, most",
    [
        (Fault("malformed"), 1, 100),
        (Fault("empty"), 0, 0),
        (Fault("oversize", size=300_000), 300_000, 300_100),
    ],
)
async def test_odd_bodies(api: Api, fault: Fault, least: int, most: int) -> None:
    """A body that is broken, missing or too large comes with 200, and the request took effect."""
    api.emulator.fault("create", fault)
    response, body = await post(api)
    assert response.status == 200
    assert least <= len(body) <= most
    assert len(api.emulator.tasks) == 1


async def test_lie(api: Api) -> None:
    """A lying DELETE says "Task cancelled" and the task runs on."""
    task_id = await api.create()
    api.emulator.fault("delete", Fault("lie", times=1))
    assert await api.cancel(task_id) == (
        200,
        {"success": True, "data": {"message": "Task cancelled"}},
    )
    assert api.emulator.live == 1
    assert (await api.cancel(task_id))[0] == 200
    assert api.emulator.live == 0


async def test_latency(api: Api) -> None:
    """Latency delays and then goes on as usual, or with the next fault."""
    api.emulator.fault("create", Fault("latency", seconds=0.05))
    began = time.monotonic()
    assert (await post(api))[0].status == 200
    assert time.monotonic() - began >= 0.05
    api.emulator.fault("create", Fault("status", status=503))
    assert (await post(api))[0].status == 503


# --- broken connections ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, error, effect",
    [
        ("reset_before", aiohttp.ClientOSError, 0),
        ("lost_answer", aiohttp.ServerDisconnectedError, 1),
        ("reset_mid", aiohttp.ClientPayloadError, 1),
        ("truncated", aiohttp.ClientPayloadError, 1),
    ],
)
async def test_broken_answers(api: Api, kind: Any, error: type[Exception], effect: int) -> None:
    """A broken connection is an error to the client, whether or not the request took effect."""
    api.emulator.fault("create", Fault(kind, times=1))
    with pytest.raises(error):
        await post(api)
    assert len(api.emulator.tasks) == effect
    assert (await post(api))[0].status == 200


async def test_a_reset_is_a_reset(api: Api) -> None:
    """The connection ends with a TCP RST: a raw reader gets ECONNRESET and not an end of file."""
    api.emulator.fault("list", Fault("reset_before"))
    port = int(api.emulator.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def test_reset_after(api: Api) -> None:
    """A reset after the answer leaves the answer whole."""
    api.emulator.fault("create", Fault("reset_after", times=1))
    response, body = await post(api)
    assert (response.status, body[:16]) == (200, b'{"success":true,')
    assert len(api.emulator.tasks) == 1


async def test_drip(api: Api) -> None:
    """A dripping answer is whole in the end."""
    api.emulator.fault("list", Fault("drip", seconds=0.0001))
    status, body = await api.call("GET", TASKS)
    assert (status, body["data"]) == (200, [])


@pytest.mark.parametrize("kind, effect", [("black_hole", 0), ("black_hole_after", 1)])
async def test_black_holes_let_clients_go(api: Api, kind: Any, effect: int) -> None:
    """A black hole never answers; a client that goes away is forgotten."""
    api.emulator.fault("create", Fault(kind))
    creating = asyncio.create_task(post(api))
    await api.emulator.wait_for(lambda state: state["requests"].get("create") == 1)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert len(api.emulator.tasks) == effect
    assert api.emulator.requests[-1].status is None


async def test_leaving_ends_black_holes_at_once(start: Start) -> None:
    """Closing the emulator drops the connections that it never meant to answer."""
    async with start() as api:
        api.emulator.fault("create", Fault("black_hole"))
        posts = [asyncio.create_task(post(api)) for _ in range(20)]
        await api.emulator.wait_for(lambda state: state["requests"].get("create") == 20)
        await api.emulator.__aexit__(None, None, None)
        results = await asyncio.gather(*posts, return_exceptions=True)
        assert all(isinstance(result, aiohttp.ClientConnectionError) for result in results)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "reset_mid", "truncated"])
async def test_a_stream_breaks_off(api: Api, kind: Any) -> None:
    """A stream that breaks off has said so many events, and does not end properly."""
    api.emulator.fault("stream", Fault(kind, events=3, times=1))
    task_id = await api.create()
    events = []
    with pytest.raises(aiohttp.ClientPayloadError):
        async with api.stream(task_id) as stream:
            while True:
                events.append((await anext(stream))[0])
    assert events == ["history_message", "history_done", "status"]
    assert api.emulator.live == 1


async def test_a_silent_stream(api: Api) -> None:
    """A silent stream opens and says nothing, not even a heartbeat."""
    api.emulator.fault("stream", Fault("silent"))
    async with api.stream(await api.create()) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)


async def test_malformed_event(start: Start) -> None:
    """One event of a malformed stream has invalid JSON."""
    async with start() as api:
        api.emulator.fault("stream", Fault("malformed"))
        task_id = await api.create()
        with pytest.raises(ValueError, match="Unterminated"):
            await api.events(task_id)


async def whole_stream(api: Api) -> list[tuple[str, Any]]:
    """The events of a task that is completed once its stream is open, however slow the machine."""
    emulator, task_id = api.emulator, await api.create()
    reading = asyncio.create_task(api.events(task_id))
    await emulator.wait_for(lambda state: state["requests"].get("stream"))
    await emulator.wait_for(lambda _: emulator.requests[-1].status == 200)
    emulator.complete(task_id)
    return await reading


async def test_oversize_event(start: Start) -> None:
    """One event of an oversize stream is as large as asked for, and the stream goes on."""
    async with start(script=Script(hold=True)) as api:
        api.emulator.fault("stream", Fault("oversize", size=50_000))
        events = await whole_stream(api)
        assert max(len(str(data)) for _, data in events) > 50_000
        assert events[-1][0] == "done"


@pytest.mark.parametrize("kind", ["drip", "reset_after"])
async def test_drip_and_reset_after_keep_a_stream_whole(start: Start, kind: Any) -> None:
    """A dripping stream, or one that is reset after its end, says everything."""
    async with start(script=Script(hold=True)) as api:
        api.emulator.fault("stream", Fault(kind))
        assert (await whole_stream(api))[-1][0] == "done"


async def test_other_faults_befall_streams_too(api: Api) -> None:
    """A stream may be refused, or reset before it begins, as any request."""
    task_id = await api.create()
    path = f"{TASKS}/{task_id}/stream"
    api.emulator.fault("stream", Fault("status", status=503, times=1))
    assert (await api.call("GET", path))[0] == 503
    api.emulator.fault("stream", Fault("empty", times=1))
    async with api.session.get(api.emulator.url + path) as response:
        assert (response.status, await response.read()) == (200, b"")
    api.emulator.fault("stream", Fault("cut", times=1))
    assert (await api.call("GET", f"{TASKS}/nobody/stream"))[0] == 404
    api.emulator.fault("stream", Fault("lost_answer"))  # aiohttp sends a GET twice
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.call("GET", path)


# --- when -----------------------------------------------------------------------------------------


async def statuses(api: Api, number: int) -> list[int]:
    return [(await api.call("GET", TASKS))[0] for _ in range(number)]


async def test_times_and_every(api: Api) -> None:
    """A fault fires on each k-th request, so many times, and then no more."""
    api.emulator.fault("list", Fault("status", status=503, every=2, times=2))
    assert await statuses(api, 6) == [200, 503, 200, 503, 200, 200]


async def test_the_first_fault_that_fires_wins(api: Api) -> None:
    """Faults fire in the order in which they were set, one per request."""
    api.emulator.fault("list", Fault("status", status=503, times=1))
    api.emulator.fault("*", Fault("status", status=429, times=1))
    assert await statuses(api, 3) == [503, 429, 200]


async def test_probability_is_seeded(start: Start) -> None:
    """The same seed gives the same faults."""
    runs = []
    for _ in range(2):
        async with start(seed=7) as api:
            api.emulator.fault("list", Fault("status", status=503, probability=0.5))
            runs.append(await statuses(api, 20))
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 503}


async def test_clearing(api: Api) -> None:
    """Faults are cleared for one route, or all."""
    for route in ("list", "get", "create"):
        api.emulator.fault(route, Fault("status", status=503))
    api.emulator.clear_faults("list")
    assert await statuses(api, 1) == [200]
    assert (await post(api))[0].status == 503
    api.emulator.clear_faults()
    assert (await post(api))[0].status == 200


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "earthquake"},
        {"kind": "redirect"},
        {"kind": "latency", "seconds": -1},
        {"kind": "latency", "seconds": float("nan")},
        {"kind": "status", "status": 99},
        {"kind": "status", "times": 0},
        {"kind": "status", "every": 0},
        {"kind": "status", "probability": 2},
        {"kind": "cut", "events": -1},
        {"kind": "reset_mid", "effect": False},
    ],
)
def test_a_fault_is_validated(options: Any) -> None:
    """A fault that makes no sense is refused when it is made."""
    with pytest.raises(ValueError, match="Fault: "):
        Fault(**options)


@pytest.mark.parametrize(
    "route, kind", [("nowhere", "empty"), ("get", "cut"), ("*", "silent"), ("*", "lie")]
)
def test_a_fault_fits_its_route(route: str, kind: Any) -> None:
    """A fault is refused on a route that does not know it."""
    with pytest.raises(ValueError, match="route"):
        Emulator().fault(route, Fault(kind))


@pytest.mark.parametrize(
    "options",
    [
        {"duration": -1},
        {"pending": float("inf")},
        {"chunks": "text"},
        {"approval": ""},
    ],
)
def test_a_script_is_validated(options: Any) -> None:
    """A script that makes no sense is refused when it is made."""
    with pytest.raises(ValueError, match="Script"):
        Script(**options)


async def test_swapped(api: Api) -> None:
    """GET tells of another task, or of none; a create gives the id of one that lives."""
    api.emulator.set_script(Script(hold=True))
    api.emulator.fault("create", Fault("swapped"))
    first = await api.create()
    api.emulator.fault("get", Fault("swapped"))
    assert (await api.get(first))["id"] not in api.emulator.tasks
    assert await api.create() == first
    [_, second] = api.emulator.tasks
    assert (await api.get(first))["id"] == second
    assert (await api.get(second))["id"] == first
    assert (await api.call("GET", f"{TASKS}/nobody"))[0] == 404
    with pytest.raises(ValueError, match="get and create"):
        api.emulator.fault("delete", Fault("swapped"))
