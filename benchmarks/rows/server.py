"""The limit: how many requests a second the server under all this answers, and what it is to nginx.

Every other row runs below this, or its figures are the server's. The client is a raw socket that
sends 64 requests at once and does no more than count the answers; wrk is another one, where it is
installed. nginx, where it is, answers the same client with the same bytes.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from time import perf_counter
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from benchmarks.core.books import task_id
from benchmarks.core.model import Case, Goal, Plot, Row
from benchmarks.core.site import KEY, Unsound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.core.site import Site

AT_ONCE: Final = 64
_NGINX: Final = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder};
proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
scgi_temp_path {folder};
server {{ listen 127.0.0.1:{port};
location / {{ return 200 '{{"success":true,"data":{{"message":"Task cancelled"}}}}'; }} }} }}
"""


def _request(host: str, number: int) -> bytes:
    return (
        f"DELETE /api/v1/tasks/{task_id(number)} HTTP/1.1\r\nHost: {host}\r\n"
        f"Accept: */*\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    ).encode()


def delete_all(url: str, number: int) -> dict[str, float]:
    """Delete so many tasks over one raw connection, and return the rate."""
    parts = urlsplit(url)
    batches = [
        b"".join(_request(parts.netloc, one) for one in range(first, first + AT_ONCE))
        for first in range(0, number, AT_ONCE)
    ]
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        began = perf_counter()
        for batch in batches:
            connection.sendall(batch)
            left, tail = AT_ONCE, b""
            while left:
                data = connection.recv(1 << 16)
                if not data:
                    raise Unsound("the server hung up")
                tail += data
                left -= tail.count(b"HTTP/1.1 200")
                tail = tail[-11:]  # the head of an answer may be cut here, and is never whole
        seconds = perf_counter() - began
    return {"rate": len(batches) * AT_ONCE / seconds}


async def pipelining(site: Site) -> Mapping[str, float]:
    """Ask ours."""
    site.script(seed=site["n"])
    return delete_all(site.url, site["n"])


async def nginx(site: Site) -> Mapping[str, float]:
    """Ask nginx, on the server's core."""
    program = shutil.which("nginx")
    if program is None:
        raise ModuleNotFoundError(name="nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Path(site.folder) / "nginx.conf"
    settings.write_text(_NGINX.format(folder=site.folder, port=port), encoding="utf-8")
    command = ["taskset", "-c", ",".join(map(str, site.server_cores or [0])), program]
    with Popen([*command, "-c", str(settings)], stderr=DEVNULL) as process:
        try:
            _await_port(port)
            return delete_all(f"http://127.0.0.1:{port}", site["n"])
        finally:
            process.terminate()


def _await_port(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Unsound("nginx did not start")


async def wrk(site: Site) -> Mapping[str, float]:
    """Let wrk read one task for two seconds, over as many connections."""
    program = shutil.which("wrk")
    if program is None:
        raise ModuleNotFoundError(name="wrk")
    site.script(seed=1)
    command = [program, "-t1", f"-c{AT_ONCE}", "-d2", f"{site.tasks}/{task_id(0)}"]
    told = run(command, stdout=PIPE, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None
    return {"rate": float(found[1])}


def cases(quick: bool) -> list[Case]:
    number = 32_000 if quick else 256_000
    who = ("pipelining", "wrk", "nginx")
    return [Case(label="DELETE", numbers={"n": number}, contestants=who)]


ROW = Row(
    name="server",
    title="requests a second that the server answers, on its core",
    headline="rate",
    contestants={"pipelining": pipelining, "wrk": wrk, "nginx": nginx},
    cases=cases,
    goals=(
        Goal(
            text="faster than any client here",
            case="DELETE",
            who="pipelining",
            measure="rate",
            at_least=40_000,
        ),
        Goal(
            text="as fast as nginx",
            case="DELETE",
            who="pipelining",
            measure="rate",
            over="nginx",
            at_least=0.5,
        ),
    ),
    plots=(Plot(measure="rate", title="Requests a second that the server answers"),),
)
