"""A task that says something, and whoever listens."""

from __future__ import annotations

from sigmic_guard import ConnectionFailed, RemoteTask, TaskEvent
from tests.supervisor.lab import Lab

CHUNKS = ("The ", "answer ", "is ", "is ", "", "42", ".")
WHOLE = "".join(CHUNKS)
SNAPPED = ConnectionFailed("the connection was reset", sent=True)


def scripted(duration: float = 80) -> Lab:
    lab = Lab()
    lab.fake.script("m", duration=duration, chunks=CHUNKS)
    return lab


async def read(task: RemoteTask) -> list[TaskEvent]:
    return [event async for event in task.events()]


def text(events: list[TaskEvent]) -> str:
    return "".join(event.text for event in events)
