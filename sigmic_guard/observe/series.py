"""The series themselves: names, help texts, labels and buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from sigmic_guard.observe.lock import ForkSafeLock

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics import MetricWrapperBase

_COMMIT: Final = (1e-5, 1e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_REQUEST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DRAIN: Final = (0.1, 0.25, 0.5, 1, 2, 4, 6, 8, 9, 10, 15, 30, 60, 120)
_TASK: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)


#: A registry's attribute that says what was registered with it, by name. It is not kept here, for
#: this module may be imported twice, or anew, and its registries are not.
_ATTRIBUTE: Final = "_sigmic_guard_series"


class Series:
    """One attribute per series, in the order in which they are exposed."""

    def __init__(self) -> None:
        self.started = Counter(
            "sigmic_guard_tasks_started_total",
            "Tasks that were begun, adopted or taken over; always the sum of the finished and the "
            "live ones.",
            registry=None,
        )
        self.live = Gauge(
            "sigmic_guard_tasks_live",
            "Tasks that have not finished, by what may be believed about the remote side; "
            "unconfirmed ones may still run and cost money.",
            ["state"],
            registry=None,
            multiprocess_mode="livesum",
        )
        self.finished = Counter(
            "sigmic_guard_tasks_finished_total",
            "Tasks that finished, by how they ended and what they were cancelled for, or none.",
            ["outcome", "reason"],
            registry=None,
        )
        self.durations = Histogram(
            "sigmic_guard_task_duration_seconds",
            "Seconds from the beginning of a task to its end, by how it ended.",
            ["outcome"],
            registry=None,
            buckets=_TASK,
        )
        self.cancellations = Counter(
            "sigmic_guard_cancellations_total",
            "Cancellations, by what came of them; an unconfirmed one can count again later.",
            ["result"],
            registry=None,
        )
        self.attempts = Counter(
            "sigmic_guard_cancel_attempts_total",
            "DELETE requests, by their HTTP status, or timeout, connection or protocol.",
            ["status"],
            registry=None,
        )
        self.acknowledge = Histogram(
            "sigmic_guard_cancel_acknowledge_seconds",
            "Seconds from asking for a cancellation to the answer 2xx.",
            registry=None,
            buckets=_REQUEST,
        )
        self.confirm = Histogram(
            "sigmic_guard_cancel_confirm_seconds",
            "Seconds from asking for a cancellation to seeing a terminal status.",
            registry=None,
            buckets=_REQUEST,
        )
        self.shutdown = Histogram(
            "sigmic_guard_shutdown_seconds",
            "Seconds that the drain of a supervisor took.",
            registry=None,
            buckets=_DRAIN,
        )
        self.requests = Histogram(
            "sigmic_guard_http_request_seconds",
            "Seconds that HTTP requests to the API took, by method, route template and status.",
            ["method", "route", "status"],
            registry=None,
            buckets=_REQUEST,
        )
        self.commit = Histogram(
            "sigmic_guard_ledger_commit_seconds",
            "Seconds that committed ledger transactions took.",
            registry=None,
            buckets=_COMMIT,
        )
        self.batch = Histogram(
            "sigmic_guard_ledger_batch_size",
            "Rows that were written in one ledger transaction.",
            registry=None,
            buckets=_BATCH,
        )
        self.orphans = Gauge(
            "sigmic_guard_orphans",
            "Tasks of dead owners that this process knows of and whose end is not proven: those it "
            "reaps, those that wait for their key, and those it has no right to.",
            registry=None,
            multiprocess_mode="livemax",
        )
        self.oldest_orphan = Gauge(
            "sigmic_guard_orphan_oldest_age_seconds",
            "Seconds that the oldest orphan has been without an owner, as it was when last looked "
            "at; 0 where there is none.",
            registry=None,
            multiprocess_mode="livemax",
        )
        self.reaped = Counter(
            "sigmic_guard_orphans_reaped_total",
            "Tasks of dead owners that were seen to, by what came of them.",
            ["how"],
            registry=None,
        )
        self.orphan_seconds = Counter(
            "sigmic_guard_orphan_task_seconds_total",
            "Seconds that tasks ran on without an owner, counted when they are seen to.",
            registry=None,
        )

    @classmethod
    def on(cls, registry: CollectorRegistry) -> tuple[Series, Shared]:
        """Return the series of ``registry``: those that are registered, and what they share.

        :raises ValueError: somebody else registered a series of the same name. None is added.
        """
        shared: Shared | None = getattr(registry, _ATTRIBUTE, None)
        series = cls()
        if shared is None:
            shared = Shared()
        series._register(registry, shared)
        setattr(registry, _ATTRIBUTE, shared)
        return series, shared

    def _register(self, registry: CollectorRegistry, shared: Shared) -> None:
        done: list[MetricWrapperBase] = []
        try:
            for name, metric in vars(self).items():
                if name not in shared.series:
                    registry.register(metric)
                    done.append(metric)
        except ValueError:
            for metric in done:
                registry.unregister(metric)
            raise
        shared.series = {**vars(self), **shared.series}
        vars(self).update(shared.series)


class Shared:
    """What a registry keeps for all copies of this library, whichever made it."""

    def __init__(self) -> None:
        #: By the attribute of :class:`Series`.
        self.series: dict[str, MetricWrapperBase] = {}
        #: By owner: how many orphans it knows of, and for how long the oldest has been one.
        self.orphans: dict[str, tuple[int, float]] = {}
        #: Around the counting of those: supervisors may be in several threads.
        self.counting = ForkSafeLock()
