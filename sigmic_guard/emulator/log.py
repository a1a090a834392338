"""Which requests came: the log that tests prove things by, and its counts."""

import collections
import dataclasses

LENGTH = 200_000
"""How many requests the log keeps; the counts are of all."""


@dataclasses.dataclass(slots=True)
class RequestSeen:
    """A request that reached the server."""

    method: str
    route: str
    """`create, get, list, delete, stream, send, approve`; empty where the API has no such route."""
    resource: str
    """`tasks, task, stream, messages, approve`; empty where the API has no such path."""
    path: str
    """Path and query exactly as they were sent."""
    task_id: str | None
    """The decoded id of the path, or the id of the task that was created."""
    at: float
    """When it came, in seconds since 1970."""
    status: int | None = None
    """What it was answered; None as long as it is not, or if no answer was begun."""


class RequestLog:
    """The last requests, and how many there were of each kind."""

    def __init__(self) -> None:
        """Begin empty."""
        self.recent: collections.deque[RequestSeen] = collections.deque(maxlen=LENGTH)
        self.by_route: collections.Counter[str] = collections.Counter()
        self._counts: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def add(self, seen: RequestSeen) -> None:
        """Note a request as it comes."""
        self.recent.append(seen)
        self.by_route[seen.route or "unknown"] += 1
        self._counts[seen.method, seen.route, seen.resource] += 1

    def clear(self) -> None:
        """Forget everything."""
        self.recent.clear()
        self.by_route.clear()
        self._counts.clear()

    def count(self, method: str | None = None, route: str | None = None) -> int:
        """How many requests came with this method, and for this route or resource; None is any."""
        return sum(
            number
            for (had_method, *names), number in self._counts.items()
            if method in {None, had_method} and (route is None or route in names)
        )
