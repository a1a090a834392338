"""Which route a request is for.

Works on the raw path: an id is exactly one segment of it, decoded after the path was split.
"""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

PREFIX = "/api/v1/"

_METHODS: Mapping[str, Mapping[str, str]] = {
    "tasks": {"POST": "create", "GET": "list"},
    "task": {"GET": "get", "DELETE": "delete"},
    "stream": {"GET": "stream"},
    "messages": {"POST": "send"},
    "approve": {"POST": "approve"},
}
"""What each method does to each resource: the name of the route."""


class Call(NamedTuple):
    """What a request asks for.

    `resource` and `route` are empty where the path is wrong, `route` where only the method is.
    """

    resource: str = ""
    route: str = ""
    task_id: str = ""
    call_id: str = ""


def resolve(method: str, path: str) -> Call:
    """The route of a request, by its method and its path as it was sent, without the query."""
    match path.removeprefix(PREFIX).split("/") if path.startswith(PREFIX) else ():
        case ["tasks"]:
            return _call(method, "tasks")
        case ["tasks", task] if task:
            return _call(method, "task", task)
        case ["tasks", task, "stream" | "messages" as resource] if task:
            return _call(method, resource, task)
        case ["tasks", task, "tools", call, "approve"] if task and call:
            return _call(method, "approve", task, call)
        case _:
            return Call()


def _call(method: str, resource: str, task: str = "", call: str = "") -> Call:
    return Call(resource, _METHODS[resource].get(method, ""), unquote(task), unquote(call))
