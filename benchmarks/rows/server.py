"""The limit: how many requests a second the server under all this answers, and what it is to nginx.

Every other row runs below this, or its figures are the server's: a run fails if it did not. The
client is a raw socket that sends 64 requests at once and does no more than count the answers; wrk
is another one, where it is installed. nginx, where it is, answers the same clients with the same
bytes.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from time import perf_counter
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from benchmarks.core.books import task_id
from benchmarks.core.model import Case, Goal, Plot, Row
from benchmarks.core.site import KEY, Unsound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.core.site import Site

NGINX, WRK, WRK_NGINX = "pipelining, nginx", "wrk", "wrk, nginx"
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


@contextmanager
def nginx_serving(site: Site) -> Iterator[str]:
    """Run nginx on the server's core, with the same answer to everything; give its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Path(site.folder) / "nginx.conf"
    settings.write_text(_NGINX.format(folder=site.folder, port=port), encoding="utf-8")
    command = ["taskset", "-c", ",".join(map(str, site.server_cores or [0])), find("nginx")]
    with Popen([*command, "-c", str(settings)], stderr=DEVNULL) as process:
        try:
            _await_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def find(program: str) -> str:
    """Return where a program is, or say that it is not installed."""
    found = shutil.which(program)
    if found is None:
        raise ModuleNotFoundError(name=program)
    return found


def _await_port(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Unsound("nginx did not start")


async def pipelining_nginx(site: Site) -> Mapping[str, float]:
    """Ask nginx in the same way."""
    with nginx_serving(site) as url:
        return delete_all(url, site["n"])


def wrk(url: str) -> dict[str, float]:
    """Let wrk read for two seconds, over as many connections."""
    command = [find("wrk"), "-t1", f"-c{AT_ONCE}", "-d2", f"{url}/api/v1/tasks/{task_id(0)}"]
    told = run(command, stdout=PIPE, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None
    return {"rate": float(found[1])}


async def wrk_ours(site: Site) -> Mapping[str, float]:
    site.script(seed=1)
    return wrk(site.url)


async def wrk_nginx(site: Site) -> Mapping[str, float]:
    with nginx_serving(site) as url:
        return wrk(url)


def cases(quick: bool) -> list[Case]:
    number = 32_000 if quick else 256_000
    who = ("pipelining", NGINX, WRK, WRK_NGINX)
    return [Case(label="DELETE", numbers={"n": number}, contestants=who)]


ROW = Row(
    name="server",
    title="requests a second that the server answers, on its core",
    headline="rate",
    contestants={
        "pipelining": pipelining,
        NGINX: pipelining_nginx,
        WRK: wrk_ours,
        WRK_NGINX: wrk_nginx,
    },
    cases=cases,
    goals=(
        Goal(
            text="against nginx, pipelining",
            case="DELETE",
            who="pipelining",
            measure="rate",
            over=NGINX,
            at_least=1.0,
        ),
        Goal(
            text="against nginx, by wrk",
            case="DELETE",
            who=WRK,
            measure="rate",
            over=WRK_NGINX,
            at_least=0.3,
        ),
    ),
    plots=(Plot(measure="rate", title="Requests a second that the server answers"),),
)
