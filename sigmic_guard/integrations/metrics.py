"""The metrics as a page of a web service: for ASGI, for aiohttp.web, and for several processes.

With prometheus_client's ``PROMETHEUS_MULTIPROC_DIR`` the page tells of all processes that share
that directory, whichever of them answers. Sums are right then. A worker that is killed leaves the
file of its gauges, its live tasks among them: the page leaves out those of processes that are gone.
From then on started = finished + live cannot hold, for nobody saw how its tasks ended.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from anyio import to_thread
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from sigmic_guard.errors import ConfigurationError
from sigmic_guard.integrations.standalone import serve_other

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prometheus_client import Metric

    from sigmic_guard.integrations.asgi.protocol import Application, Receive, Scope, Send

    Handler = Callable[[web.Request], Awaitable[web.Response]]

__all__ = ["child_exit", "metrics_app", "metrics_handler"]

_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
#: The file of gauges that tell of living processes only, and whose it is.
_LIVE_GAUGES: Final = re.compile(r"gauge_live[a-z]*_([0-9]{1,10})\.db")


def metrics_app(registry: CollectorRegistry | None = None) -> Application:
    """Return an ASGI application that answers every request with the metrics.

    Mount it, or serve it on a port of its own. Who may read it is for the host to say.

    :param registry: default: what all processes tell, where ``PROMETHEUS_MULTIPROC_DIR`` is set,
        else prometheus_client's own registry, in which a ``Supervisor`` counts by default.
    :raises ConfigurationError: ``PROMETHEUS_MULTIPROC_DIR`` is no directory.
    """
    page = _Page(registry)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await serve_other(scope, receive, send)
        else:
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            content_type, body = await page.render(accept)
            headers = [
                (b"content-type", content_type.encode()),
                (b"content-length", b"%d" % len(body)),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return app


def metrics_handler(registry: CollectorRegistry | None = None) -> Handler:
    """Return a handler for aiohttp.web.

    ``app.router.add_get("/metrics", metrics_handler())``

    :param registry: as for :func:`metrics_app`.
    :raises ConfigurationError: ``PROMETHEUS_MULTIPROC_DIR`` is no directory.
    """
    page = _Page(registry)

    async def metrics(request: web.Request) -> web.Response:
        content_type, body = await page.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return metrics


def child_exit(server: object, worker: Any) -> None:
    """Remove the gauges of a worker that is gone: gunicorn's hook of that name.

    ``from sigmic_guard.integrations.metrics import child_exit`` in ``gunicorn.conf.py`` is enough.
    Without it the page leaves them out as well, but a process that gets the same number would bring
    them back. It does nothing without ``PROMETHEUS_MULTIPROC_DIR``.
    """
    del server
    if _DIRECTORY in os.environ:
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


class _LivingCollector(MultiProcessCollector):
    """Collects what all processes tell, but gauges of live tasks only of those that live."""

    def collect(self) -> Iterable[Metric]:
        """Read the files, but those left by the dead."""
        files = [str(file) for file in Path(self._path).glob("*.db") if not _left_by_dead(file)]
        metrics: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
        return metrics


def _left_by_dead(file: Path) -> bool:
    gauges = _LIVE_GAUGES.fullmatch(file.name)
    if gauges is None:
        return False
    try:
        os.kill(int(gauges[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # of another user; or no process's number
        return False
    return False


class _Page:
    """What the page shows."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        #: Whether it is read from the files of many processes.
        self._shared = registry is None and _DIRECTORY in os.environ
        if self._shared:
            registry = CollectorRegistry()
            try:
                _LivingCollector(registry)  # type: ignore[no-untyped-call]
            except ValueError:
                raise ConfigurationError(
                    f"{_DIRECTORY} is no directory: make it, empty, before the service starts"
                ) from None
        self._registry = REGISTRY if registry is None else registry

    async def render(self, accept: str) -> tuple[str, bytes]:
        """Return content type and text, in the format that is asked for."""
        encode, content_type = choose_encoder(accept)
        if self._shared:
            return content_type, await to_thread.run_sync(encode, self._registry)
        # In the loop's thread, which the supervisor's is: no change of a task falls in between.
        return content_type, encode(self._registry)
