"""A registry outlives the module that counts in it: a second copy counts in the same series."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from sigmic_guard import observe
from sigmic_guard.lifecycle import CancelResult
from sigmic_guard.observe import Metrics
from tests.observe import lives

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = "sigmic_guard.observe"


@pytest.fixture(params=["second copy", "reload"])
def another(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of ``Metrics``, imported twice, or anew; what was there comes back."""
    names = [name for name in sys.modules if name == ROOM or name.startswith(f"{ROOM}.")]
    kept = {name: sys.modules[name] for name in names}
    fields = {name: dict(vars(module)) for name, module in kept.items()}
    if request.param == "reload":
        for name in ("series", "metrics"):
            importlib.reload(sys.modules[f"{ROOM}.{name}"])
    else:
        for name in names:
            del sys.modules[name]
    yield importlib.import_module(f"{ROOM}.metrics")
    sys.modules.update(kept)
    for name, module in kept.items():
        vars(module).update(fields[name])
    importlib.import_module("sigmic_guard").observe = kept[ROOM]  # type: ignore[attr-defined]


def test_both_count_in_one_series(another: Any) -> None:
    """Nothing is registered twice, nothing starts anew, and the sums hold."""
    registry = CollectorRegistry()
    first = Metrics.on(registry)
    second = another.Metrics.on(registry)
    assert type(second) is not Metrics
    born = lives.born()
    for metrics, events in ((first, observe), (second, another)):
        metrics.observe(events.TaskChanged(None, born, None))
        metrics.observe(events.CancellationEnded(born, CancelResult.CONFIRMED, 1.0))
    read = registry.get_sample_value
    assert read("sigmic_guard_tasks_started_total") == 2
    assert read("sigmic_guard_cancel_confirm_seconds_count") == 2
    assert read("sigmic_guard_cancellations_total", {"result": "confirmed"}) == 2
    first.observe(observe.OrphansCounted("one", 3, 5.0))
    second.observe(another.OrphansCounted("two", 4, 6.0))
    assert read("sigmic_guard_orphans") == 7
    assert another.Metrics.on(registry) is second


def test_somebody_elses_series_is_not_taken() -> None:
    """It raises, and leaves nothing of ours behind."""
    registry = CollectorRegistry()
    Counter("sigmic_guard_orphans_reaped_total", "Theirs.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Metrics.on(registry)
    assert registry.get_sample_value("sigmic_guard_tasks_started_total") is None
