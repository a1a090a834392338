"""What is to be expected of every fault on every route: the table.

Read it by shape (see shapes.py), in three steps.

1. **What one request meets**: :data:`MEETS`, by the kind of fault; the same on every route.
2. **Who is told**: the callers of the shapes in :data:`TOLD` get that error, for the request is
   theirs and sent once. All others are pursued: a fault that passes ends well (``ok``), and what
   one that stays ends in says :data:`STAYS`; ``waits`` is until a deadline or the shutdown.
   A create is told too, unless it took effect (:data:`EFFECTIVE`): then the list finds the task.
3. **What is left running** after the supervisor: nothing, but for the residual windows of
   :func:`left_running`. Each of them is named in the report, except where the server's word is all
   there is: a DELETE answered "cancelled" (``confirm="accepted"``) or "no such task".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sigmic_guard.emulator import Fault
from tests.faults import shapes
from tests.faults.witness import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

OK: Final = "ok"
WAITS: Final = "waits"
NO_ANSWER: Final = "no answer"

PAGES: Final = (401, 403, 404, 408, 409, 429)
"""Statuses of a gateway's pages, which say nothing of the API."""

MEETS: Final[dict[str, str]] = {
    "latency": OK,
    "latency beyond patience": "ConnectionFailed",
    "status 400": "ValidationError",
    "status 401": "AuthenticationError",
    "status 403": "PermissionDenied",
    "status 404": "TaskNotFound",
    "status 429": "RateLimited",
    "status 503": "ServerError",
    "html": "ServerError",
    **{f"html {status}": "ProtocolError" for status in (200, *PAGES)},
    **{f"html {status} with effect": "ProtocolError" for status in PAGES},
    "reset_before": "ConnectionFailed",
    "reset_mid": "ConnectionFailed",
    "reset_after": OK,
    "lost_answer": "ConnectionFailed",
    "black_hole": "ConnectionFailed",
    "black_hole_after": "ConnectionFailed",
    "drip": "ConnectionFailed",
    "malformed": "ProtocolError",
    "malformed without effect": "ProtocolError",
    "truncated": "ConnectionFailed",
    "empty": "ProtocolError",
    "refused_200": "ValidationError",
    "redirect": "ProtocolError",
    "oversize": "ProtocolError",
    "lie": OK,
    "cut": "ConnectionFailed",
    "silent": "ConnectionFailed",
    "swapped": "ProtocolError",
}
"""The error that one request meets, by the kind of fault."""

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "latency": {"seconds": 0.02},
    "latency beyond patience": {"seconds": 1.0},
    **{
        f"status {code}": {"status": code, "retry_after": 0.05}
        for code in (400, 401, 403, 404, 429, 503)
    },
    "drip": {"seconds": 0.02},
    "malformed without effect": {"effect": False},
    **{f"html {status}": {"status": status, "retry_after": 0.05} for status in (200, *PAGES)},
    **{f"html {status} with effect": {"status": status, "effect": True} for status in PAGES},
    "redirect": {"location": "http://127.0.0.1:9/"},
    "oversize": {"size": 2**17},
}
STREAM_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "drip": {"seconds": 0.0005},
    "oversize": {"size": 9 * 2**20},
}

EFFECTIVE: Final = frozenset(
    {
        "latency",
        "reset_mid",
        "reset_after",
        "lost_answer",
        "black_hole_after",
        "drip",
        "malformed",
        "truncated",
        "empty",
        "oversize",
        *(f"html {status} with effect" for status in PAGES),
    }
)
"""The request was obeyed, whatever the caller was told."""

SENSELESS: Final = frozenset(
    {"html 200", "malformed", "malformed without effect", "empty", "oversize", "swapped"}
)
"""A success, and no answer to what was asked."""

HOPELESS: Final = frozenset({"status 401", "status 403"})

TOLD: Final = frozenset(
    {
        shapes.get_adopt,
        shapes.get_refresh,
        shapes.send_scoped,
        shapes.send_adopted,
        shapes.approve_scoped,
    }
)

STAYS: Final[dict[shapes.Shape, str]] = {
    # GET is asked now and again of those that the list does not show.
    shapes.list_background: OK,
    # The create's own error, once it is clear that nobody can tell what came of it.
    shapes.list_unknown: "ConnectionFailed",
    # Leaving never raises and never waits for long: what is not proven is named.
    shapes.delete_scoped: OK,
    shapes.delete_background: OK,
    shapes.delete_drain: OK,
}
"""By shape: the ending where a fault stays that is met."""


class Case(NamedTuple):
    """A fault that passes (``times`` is 1) or stays (``None``), on a route, in a shape."""

    route: str
    shape: shapes.Shape
    kind: str
    times: int | None

    @property
    def name(self) -> str:
        """For pytest."""
        often = "stays" if self.times is None else "passes"
        return f"{self.shape.__name__}-{self.kind.replace(' ', '_')}-{often}"

    @property
    def passes(self) -> bool:
        """Whether the next request meets no fault."""
        return self.times is not None

    @property
    def fault(self) -> Fault:
        """The fault itself; one that can talk repeats what it was sent."""
        name = self.kind.split(" ")[0]
        options = dict(OPTIONS.get(self.kind, {}))
        if self.route == "stream":
            options |= STREAM_OPTIONS.get(self.kind, {})
        if name in {"status", "refused_200"}:
            options["message"] = echo(secrets=self.route == "create")
        return Fault(name, times=self.times, **options)  # type: ignore[arg-type]


def endings(case: Case) -> set[str]:
    """How the shape may end."""
    met = MEETS[case.kind]
    if case.route == "create":
        return {OK} if case.kind in EFFECTIVE else {met}
    if case.route == "stream":
        if case.kind == "oversize" and case.shape is shapes.stream_scoped:
            return {OK, met}  # the event would come again; or GET tells the end first
        return {met} if case.kind in HOPELESS else {OK}
    if case.shape in TOLD:
        return {met}
    if case.shape is shapes.get_background and case.kind == "oversize":
        return {NO_ANSWER}  # it is not asked for again so soon
    if met == OK or case.passes:
        return {OK}
    if case.shape is shapes.get_background:
        return no_result(case, met)
    return {STAYS[case.shape]}


def no_result(case: Case, met: str) -> set[str]:
    """How it ends for who waits for a result, where GET never tells one."""
    if case.kind == "status 404":
        return {"TaskCancelled", WAITS}  # gone for this credential, or too new to be known
    if case.kind in HOPELESS:
        return {met}  # it is told, and the task stays supervised
    if case.kind in SENSELESS:
        return {NO_ANSWER}  # the end that the list shows is believed after a few attempts
    return {WAITS}


def left_running(case: Case, ending: str) -> int:
    """How many remote tasks run on when the supervisor has been left."""
    met = MEETS[case.kind]
    match case.route:
        case "get" if case.shape is shapes.get_adopt and ending != OK:
            return 1  # never adopted: it is somebody else's
        case "list" if case.shape is shapes.list_unknown and met != OK and not case.passes:
            return 1  # nobody can tell its id
        case "delete":
            victims = 3 if case.shape is shapes.delete_drain else 1
            if case.kind == "status 404":
                return 0 if case.passes else victims  # so soon after the create it is asked again
            if case.kind == "lie":
                return 1 if case.passes else victims
            if case.kind in HOPELESS and case.passes:
                # Named at once and not asked again, but by a later shutdown.
                return 1 if case.shape is shapes.delete_drain else 0
            return 0 if case.passes or case.kind in EFFECTIVE else victims
    return 0


def named(case: Case, ending: str) -> set[int]:
    """How many tasks the report may name as unproven."""
    met = MEETS[case.kind]
    match case.route:
        case "get" if case.shape is shapes.get_background:
            return {0, 1} if ending == WAITS or case.kind in HOPELESS else {0}
        case "get":
            return {0}
        case "send" if met in {"ProtocolError", "ServerError"} and case.kind not in EFFECTIVE:
            # It may have been obeyed, and GET is not believed so soon after: the budget ends first.
            return {0, 1}
        case "delete" if case.kind in {"status 404", "lie"}:
            return {0}
        case "delete" if not case.passes and met == "ConnectionFailed":
            # There was never an answer. That it was obeyed GET finds out, in good time or not.
            victims = 3 if case.shape is shapes.delete_drain else 1
            return set(range(victims + 1)) if case.kind in EFFECTIVE else {victims}
    return {left_running(case, ending)}


def cases() -> Iterator[Case]:
    """Every kind of fault, on every route that knows it, in every shape."""
    for route, forms in shapes.SHAPES.items():
        for kind in MEETS:
            if kind in {"cut", "silent"} and route != "stream":
                continue
            if kind == "lie" and route != "delete":
                continue
            if kind == "swapped" and route != "get":  # of a create it takes two to swap their ids
                continue
            for shape in forms:
                yield Case(route, shape, kind, 1)
                yield Case(route, shape, kind, None)
