"""The supervisor's books: what its Prometheus metrics say, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PREFIX = "sigmic_guard_"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the metrics."""

    started: int = 0
    #: By state.
    live: dict[str, int] = msgspec.field(default_factory=dict)
    #: By outcome, and then by reason.
    finished: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    #: By result.
    cancellations: dict[str, int] = msgspec.field(default_factory=dict)
    #: Answers to DELETE, by status.
    deletes: dict[str, int] = msgspec.field(default_factory=dict)
    #: POSTs that were sent.
    creates: int = 0
    #: Dead owners' tasks that were seen to, by what came of them.
    reaped: dict[str, int] = msgspec.field(default_factory=dict)
    #: Seconds that these ran on without an owner, in sum.
    orphan_seconds: float = 0.0

    @property
    def ended(self) -> int:
        """How many tasks have finished."""
        return sum(map(self.with_outcome, self.finished))

    @property
    def alive(self) -> int:
        """How many have not."""
        return sum(self.live.values())

    @property
    def never_sent(self) -> int:
        """How many were withdrawn before their create went out; they count as cancelled."""
        unsent = self.live.get("intent", 0) + self.live.get("creating", 0)
        return self.started - self.creates - unsent

    def for_reason(self, reason: str) -> int:
        """How many tasks were ended for this."""
        return sum(reasons.get(reason, 0) for reasons in self.finished.values())

    def with_outcome(self, *outcomes: str) -> int:
        """How many tasks ended in one of these ways."""
        return sum(sum(self.finished.get(outcome, {}).values()) for outcome in outcomes)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a worker's."""

    counts: Counts
    #: Everything is over but for the tasks that go on for ever, and all of these that fit in run.
    steady: bool = False


def read_counts(registry: CollectorRegistry) -> Counts:
    """Read the metrics of a registry that one supervisor counts in."""
    started = creates = 0
    orphan_seconds = 0.0
    live: dict[str, int] = {}
    finished: dict[str, dict[str, int]] = {}
    cancellations: dict[str, int] = {}
    deletes: dict[str, int] = {}
    reaped: dict[str, int] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels, value = sample.labels, int(sample.value)
            match sample.name.removeprefix(_PREFIX), labels:
                case "tasks_started_total", _:
                    started = value
                case "tasks_live", {"state": state}:
                    live[state] = value
                case "tasks_finished_total", {"outcome": outcome, "reason": reason} if value:
                    finished.setdefault(outcome, {})[reason] = value
                case "cancellations_total", {"result": result}:
                    cancellations[result] = value
                case "cancel_attempts_total", {"status": status}:
                    deletes[status] = value
                case "orphans_reaped_total", {"how": how}:
                    reaped[how] = value
                case "orphan_task_seconds_total", _:
                    orphan_seconds = sample.value
                case (
                    "http_request_seconds_count",
                    {"method": "POST", "route": "/api/v1/tasks"},
                ):
                    creates += value
                case _:
                    pass
    return Counts(
        started=started,
        live=live,
        finished=finished,
        cancellations=cancellations,
        deletes=deletes,
        creates=creates,
        reaped=reaped,
        orphan_seconds=orphan_seconds,
    )
