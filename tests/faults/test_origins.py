"""The credential goes to the base URL's own origin, and nowhere else."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from sigmic_guard import ConfigurationError, Supervisor, TaskPolicy
from sigmic_guard.emulator import Emulator, Fault, Script
from sigmic_guard.emulator.faults import ROUTES
from tests.faults.shapes import SHAPES, Stage
from tests.faults.test_ids import Server
from tests.faults.witness import KEY, echo

if TYPE_CHECKING:
    from tests.faults.witness import Witness

pytestmark = pytest.mark.usefixtures("transport")

QUICK = Script(duration=0.02)


def has(host: str) -> bool:
    """Whether this machine can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


HOSTS = ["127.0.0.1", "127.0.0.2", "localhost", "::1"]
STATUSES = [301, 302, 303, 307, 308]


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(host, marks=pytest.mark.skipif(not has(host), reason=f"no {host} here"))
        for host in HOSTS
    ],
)
@pytest.mark.parametrize("tail", ["", "/", "//"])
async def test_other_hosts(host: str, tail: str, witness: Witness) -> None:
    """A base URL may name any host, and end in slashes."""
    async with (
        Emulator(host=host, script=QUICK) as emulator,
        Supervisor(
            api_key=KEY, base_url=emulator.url + tail, registry=witness.registry
        ) as supervisor,
    ):
        result = await supervisor.run("m")
        assert result.final_response == "Hello world"
        witness.meet(supervisor, result)
    assert {seen.path.split("?")[0].count("//") for seen in emulator.requests} == {0}
    assert emulator.state()["requests"].get("unknown", 0) == 0


@pytest.mark.parametrize("prefix", ["/gateway", "/gateway/sigmic/", "/a%2Fb", "/ü"])
async def test_a_path_prefix(prefix: str, witness: Witness) -> None:
    """A path in the base URL stands before all paths of the API, and no id can climb out of it."""
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.raw_path)
        await request.read()
        data = {"id": "../x", "status": "running", "message": "Task cancelled"}
        return web.json_response({"success": True, "data": data})

    async with (
        Server(handler) as url,
        Supervisor(api_key=KEY, base_url=url + prefix, registry=witness.registry) as supervisor,
    ):
        task = await supervisor.start("m")
        await task.cancel()
    head = prefix.rstrip("/").replace("ü", "%C3%BC")
    assert asked[0] == f"{head}/api/v1/tasks"
    assert asked[-1] == f"{head}/api/v1/tasks/..%2Fx"


@pytest.mark.parametrize(
    "url", ["http://user@127.0.0.1:1", "http://user:hunter2@127.0.0.1:1", "http://:hunter2@h"]
)
def test_user_info_is_refused(url: str, witness: Witness) -> None:
    """A base URL with user or password is refused, and not shown."""
    with pytest.raises(ConfigurationError, match="base URL") as caught:
        Supervisor(api_key=KEY, base_url=url, registry=witness.registry)
    witness.catch(caught.value)
    Supervisor(api_key=KEY, registry=witness.registry)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("status", STATUSES)
async def test_redirects(route: str, status: int, in_a_hurry: None, witness: Witness) -> None:
    """No redirect is followed to another origin, on any route: nothing goes there at all."""
    visits: list[Any] = []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        visits.append((request.method, request.raw_path, dict(request.headers)))
        return web.Response(text=echo())

    async with Server(elsewhere, "127.0.0.1") as other, Emulator(script=QUICK) as emulator:
        supervisor = Supervisor(
            api_key=KEY,
            base_url=emulator.url,
            create_timeout=0.6 if route == "create" else 20.0,
            grace=3.0,
            policy=TaskPolicy(cancel_wait=0.1),
            registry=witness.registry,
        )
        async with supervisor:
            fault = Fault("redirect", status=status, location=f"{other}/stolen", times=1)
            stage = Stage(emulator, supervisor, witness, route, fault)
            await stage.ending(SHAPES[route][0])
        assert (await supervisor.shutdown()).clean
        assert any(seen.status == status for seen in emulator.requests), "met no redirect"
        assert not visits


async def test_the_other_server_sees_who_follows() -> None:
    """Negative control: a client that follows redirects would be seen, and its key with it."""
    import aiohttp

    visits: list[Any] = []

    async def elsewhere(request: web.BaseRequest) -> web.Response:
        visits.append(dict(request.headers))
        return web.Response()

    async with (
        Server(elsewhere, "127.0.0.1") as other,
        Emulator(script=QUICK) as emulator,
        aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session,
    ):
        emulator.fault("list", Fault("redirect", location=f"{other}/stolen"))
        async with session.get(f"{emulator.url}/api/v1/tasks"):
            pass
    assert [visit["X-API-Key"] for visit in visits] == [KEY]
