"""The tasks of the other server: what is true of them, and what it says of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

TERMINAL = {"completed", "failed", "cancelled"}


@dataclass
class Plan:
    """How a task goes: it says its chunks one by one, and ends, or stays where it is."""

    chunks: list[str] = field(default_factory=lambda: ["Hel", "lo, ", "wörld 🌍\n"])
    end: str = "completed"  # completed | failed | hold
    start: bool = True  # or stays pending
    gap: float = 0.0  # seconds between the chunks
    approval: bool = False
    final: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.chunks) if self.final is None else self.final


@dataclass
class Remote:
    id: str
    message: str
    env: dict[str, str]
    plan: Plan
    created: float
    status: str = "pending"
    deletes: int = 0
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    past: list[tuple[float, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    approved: asyncio.Event = field(default_factory=asyncio.Event)
    player: asyncio.Task[None] | None = None

    def ring(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def plain_id(number: int) -> str:
    return f"{number:08x}-4d23-4e53-949a-ddd775f25e01"


@dataclass
class World:
    plan: Plan = field(default_factory=Plan)
    plans: dict[str, Plan] = field(default_factory=dict)  # by message
    ids: Callable[[int], str] = plain_id
    words: dict[str, str] = field(default_factory=dict)
    get_lag: float = 0.0  # what GET shows is this old
    list_lag: float = 0.0
    sparse: bool = False  # leave out what may be missing
    nulls: bool = False  # or say null
    extra: bool = False  # say more than is documented
    millis: bool = True
    activity: str = "Z"  # Z | offset | none
    output: str = "full"  # full | none
    tasks: dict[str, Remote] = field(default_factory=dict)

    # --- truth --------------------------------------------------------------------------------

    @property
    def live(self) -> list[str]:
        return [task.id for task in self.tasks.values() if task.status not in TERMINAL]

    @property
    def counts(self) -> Counter[str]:
        return Counter(task.status for task in self.tasks.values())

    @property
    def tells_output(self) -> bool:
        return self.output == "full" and not (self.sparse or self.nulls)

    @property
    def only(self) -> Remote:
        (task,) = self.tasks.values()
        return task

    def create(self, content_type: str, body: bytes) -> Remote:
        fields: dict[str, Any] = {}
        if "json" in content_type:
            fields = json.loads(body)
        else:
            head = f"Content-Type: {content_type}\r\n\r\n".encode()
            for part in message_from_bytes(head + body).walk():
                if name := part.get_param("name", header="content-disposition"):
                    raw = part.get_payload(decode=True)
                    assert isinstance(raw, bytes)
                    fields[str(name)] = raw.decode()
        return self.add(fields["message"], fields.get("env") or {})

    def add(self, message: str, env: dict[str, str] | None = None) -> Remote:
        plan = self.plans.get(message, self.plan)
        now = time.time()
        made = Remote(self.ids(len(self.tasks)), message, env or {}, plan, now)
        made.past.append((now, "pending"))
        made.history.append({"id": "m1", "role": "user", "content": message, "createdAt": iso(now)})
        self.tasks[made.id] = made
        if plan.start:
            made.player = asyncio.create_task(self._play(made, plan.chunks))
        return made

    def set(self, remote: Remote, status: str) -> None:
        remote.status = status
        remote.past.append((time.time(), status))
        player = remote.player
        if status in TERMINAL and player and player is not asyncio.current_task():
            player.cancel()
        if status == "completed":
            text = "".join(e["text"] for kind, e in remote.said if kind == "content")
            text = remote.plan.text if remote.plan.final is not None else text
            row = {"id": f"m{len(remote.history) + 1}", "role": "assistant", "content": text}
            remote.history.append({**row, "createdAt": iso(time.time())})
        remote.ring()

    def say(self, remote: Remote, kind: str, **data: Any) -> None:
        remote.said.append((kind, data))
        remote.ring()

    def follow_up(self, remote: Remote, message: str) -> None:
        now = iso(time.time())
        number = f"m{len(remote.history) + 1}"
        remote.history.append({"id": number, "role": "user", "content": message, "createdAt": now})
        remote.said.clear()
        self.set(remote, "running")
        remote.player = asyncio.create_task(self._play(remote, [f"about {message}: ", "yes"]))

    def approve(self, remote: Remote) -> None:
        remote.approved.set()

    async def _play(self, remote: Remote, chunks: list[str]) -> None:
        await asyncio.sleep(0)
        self.set(remote, "running")
        self.say(remote, "status", status="processing")
        if remote.plan.approval and not remote.approved.is_set():
            self.set(remote, "awaiting_approval")
            call = {"callId": "call/1", "toolName": "rm", "args": {"path": "/"}}
            self.say(remote, "tool_call", **call, status="awaiting_approval")
            await remote.approved.wait()
            self.set(remote, "running")
            self.say(remote, "tool_result", callId="call/1", result="done")
        for chunk in chunks:
            if remote.plan.gap:
                await asyncio.sleep(remote.plan.gap)
            self.say(remote, "content", text=chunk, isPartial=True)
        if remote.plan.end == "failed":
            self.say(remote, "error", message="the sandbox is gone")
        if remote.plan.end != "hold":
            self.set(remote, remote.plan.end)

    def close(self) -> None:
        for task in self.tasks.values():
            if task.player:
                task.player.cancel()

    # --- what is said of it -------------------------------------------------------------------

    def word(self, status: str) -> str:
        return self.words.get(status, status)

    def seen(self, remote: Remote, lag: float | None = None) -> str | None:
        """What it was, as seen through the lag; None where it was not there yet."""
        then = time.time() - (self.get_lag if lag is None else lag)
        known = [status for at, status in remote.past if at <= then]
        return known[-1] if known else None

    def listed(self) -> list[Remote]:
        rows = [t for t in self.tasks.values() if self.seen(t, self.list_lag) is not None]
        return sorted(rows, key=lambda task: task.past[-1][0], reverse=True)

    def row(self, remote: Remote, *, output: bool) -> dict[str, Any]:
        status = self.seen(remote, None if output else self.list_lag) or "pending"
        ended = remote.past[-1][0] if status in TERMINAL else None
        row: dict[str, Any] = {
            "id": remote.id,
            "apiKeyId": "k",
            "username": "someone",
            "sessionId": None,
            "conversationId": None,
            "status": self.word(status),
            "message": remote.message,
            "systemPrompt": None,
            "showInHistory": True,
            "autoExecute": True,
            "env": remote.env,
            "error": "the sandbox is gone" if status == "failed" else None,
            "createdAt": iso(remote.created, millis=self.millis),
            "startedAt": iso(remote.created, millis=self.millis),
            "completedAt": iso(ended, millis=self.millis) if ended else None,
        }
        if output and self.output == "full":
            text = "".join(e["text"] for kind, e in remote.said if kind == "content")
            if status == "completed":
                text = remote.history[-1]["content"]
            row["output"] = {"content": text, "updatedAt": row["createdAt"], "tokens": 4}
        if not output:
            row["messageCount"] = len(remote.history)
            if self.activity != "none":
                zone = "Z" if self.activity == "Z" else "+00:00"
                row["lastActivityAt"] = iso(remote.past[-1][0], zone=zone)
        if status == "awaiting_approval" and output:
            row["pendingApprovals"] = [{"callId": "call/1", "toolName": "rm", "args": {}}]
        keep = {"id", "status", "env"}
        if self.sparse:
            row = {key: value for key, value in row.items() if key in keep}
        if self.nulls:
            row = {key: value if key in keep else None for key, value in row.items()}
        if self.extra:
            row |= {"cost": {"usd": 0.1}, "_links": [], "2": None, "region": "eu"}
        return row


def iso(at: float, *, millis: bool = True, zone: str = "Z") -> str:
    moment = datetime.fromtimestamp(at, UTC)
    text = moment.isoformat(timespec="milliseconds" if millis else "seconds")
    return text.removesuffix("+00:00") + zone
