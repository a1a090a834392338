"""An error of a request is freed when its last holder lets go: no frame of its own holds it.

Else what the callers' frames hold, an iterator over events for one, would wait for the collector.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

from sigmic_guard import SigmicGuardError
from sigmic_guard.emulator import Emulator, Fault
from sigmic_guard.sigmic import SigmicClient
from sigmic_guard.testing import FakeSigmic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.usefixtures("transport")

KEY = "sigmic_test"
TASK = "5b3f7a52-6f0e-4c58-9a3c-0d6f1f0f2a11"
FAULTS = [
    Fault("status", status=404),
    Fault("status", status=503),
    Fault("html"),
    Fault("malformed"),
    Fault("reset_before"),
    Fault("black_hole"),
    Fault("redirect", location="http://127.0.0.1:9/"),
]
CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "get": lambda api: api.get(TASK, timeout=0.3),
    "list": lambda api: api.list(timeout=0.3),
    "delete": lambda api: api.delete(TASK, timeout=0.3),
    "stream": lambda api: api.stream(TASK, timeout=0.3, silence=1),
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Let nothing be freed but by its last holder."""
    gc.disable()
    yield
    gc.enable()


async def is_freed(call: Callable[[Any], Awaitable[object]], api: object) -> bool:
    with pytest.raises(SigmicGuardError) as caught:
        await call(api)
    kept = ref(caught.value)
    del caught
    return kept() is None


@pytest.mark.parametrize(
    "route, fault",
    # A DELETE that was answered 2xx, however oddly, raises nothing.
    [
        (route, it)
        for route in CALLS
        for it in FAULTS
        if (route, it.kind) != ("delete", "malformed")
    ],
    ids=lambda it: it if isinstance(it, str) else f"{it.kind} {it.status or ''}",
)
async def test_the_client(route: str, fault: Fault, no_collector: None) -> None:
    """Whatever happens to a request, on each route."""
    async with Emulator(api_key=KEY) as emulator, SigmicClient(KEY, emulator.url) as client:
        emulator.fault(route, fault)
        assert await is_freed(CALLS[route], client)


@pytest.mark.parametrize("route", ["get", "delete", "stream"])
async def test_the_fake(route: str, no_collector: None) -> None:
    """The same holds for the fake, so that tests go as the real thing does."""
    assert await is_freed(CALLS[route], FakeSigmic())
