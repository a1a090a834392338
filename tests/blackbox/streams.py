"""How the other server writes its event streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tests.blackbox.world import TERMINAL, Remote, World


@dataclass
class StreamManners:
    newline: str = "\n"
    bom: bool = False
    named: bool = True  # with `event:` lines
    typed: bool = False  # with a "type" in the payload, beside its fields
    wrapped: bool = False  # {"type", "data"}
    comments: bool = False
    chunk: int = 0  # bytes a write; 0 for whole events
    catch_up: str = "chunks"  # chunks | one | none
    done: str = "full"  # full | empty | null | missing
    whole: bool = False  # the whole text again at the end, with isPartial false
    early_false: bool = False  # isStreaming false also while the task is pending or running
    silent: bool = False  # heartbeats and nothing else
    closes_early: bool = False  # ends after what there is, though the task runs on
    multiline: bool = False  # JSON over many data lines


async def stream_bytes(
    remote: Remote, manners: StreamManners, world: World
) -> AsyncIterator[bytes]:
    def event(kind: str, data: Any) -> bytes:
        if manners.wrapped:
            data = {"type": kind, "data": data}
        elif manners.typed:
            data = {"type": kind, **(data or {})}
        text = json.dumps(data, ensure_ascii=False, indent=2 if manners.multiline else None)
        lines = [f"event: {kind}"] if manners.named else []
        if manners.comments:
            lines = [": hello", *lines, "id: 7", "retry: 10", "foo: bar", ":"]
        lines += [f"data: {line}" for line in text.split("\n")] + ["", ""]
        return manners.newline.join(lines).encode()

    if manners.bom:
        yield b"\xef\xbb\xbf"
    if manners.silent:
        while True:
            yield b":heartbeat\n\n"
            await remote.changed.wait()
    for message in list(remote.history):
        yield event("history_message", message)
    running = remote.status not in TERMINAL
    streaming = running and not manners.early_false
    yield event("history_done", {"messageCount": len(remote.history), "isStreaming": streaming})
    if not running or manners.early_false:
        return
    at = 0
    if manners.catch_up == "one":
        at = len(remote.said)
        text = "".join(data["text"] for kind, data in remote.said if kind == "content")
        if text:
            yield event("content", {"text": text, "isPartial": True})
    elif manners.catch_up == "none":
        at = len(remote.said)
    while True:
        changed = remote.changed
        while at < len(remote.said):
            kind, data = remote.said[at]
            at += 1
            yield event(kind, data)
        if remote.status in TERMINAL or manners.closes_early:
            break
        await changed.wait()
        yield b":heartbeat" + 2 * manners.newline.encode()
    if remote.status != "completed" or manners.closes_early:
        return
    text = remote.history[-1]["content"]
    if manners.whole:
        yield event("content", {"text": text, "isPartial": False})
    last = {"full": {"finalResponse": text}, "empty": {}, "null": None}
    if manners.done in last:
        yield event("done", last[manners.done])
