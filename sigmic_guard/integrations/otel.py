"""Traces with OpenTelemetry: :class:`Tracing`, for ``Supervisor(observers=[Tracing()])``.

Each task is one span, ``invoke_agent``, from the call that asked for it to its end; each request
that creates, cancels or confirms it is a child, and so are follow-ups and decisions on tool calls.
Source: OpenTelemetry's GenAI conventions, whose status is "Development".

It needs ``pip install 'sigmic-guard[otel]'``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from sigmic_guard import __version__
from sigmic_guard.errors import SigmicGuardError
from sigmic_guard.lifecycle import CancelReason, Event, Outcome, State
from sigmic_guard.observe import TaskChanged, TaskLeft, bounded_status, status_of
from sigmic_guard.sigmic import trace_headers

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImportError("Tracing needs pip install 'sigmic-guard[otel]'") from missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.trace import Span, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from sigmic_guard.lifecycle import Record
    from sigmic_guard.observe import ObservedEvent
    from sigmic_guard.observe.observer import Detail, Operation

__all__ = ["Tracing"]

_PROPAGATOR: Final = TraceContextTextMapPropagator()
#: What follows when a cancellation is under way, which may be after the end of all else.
_ENDING: Final = frozenset({"cancel", "confirm"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Tracing:
    """An observer that makes a span of each task, and of each request about it.

    A task's span is a child of the span that is current where the task is asked for. A request to
    cancel it that is sent after the end of that one, which nobody may look at any more, is a trace
    of its own, linked to the task's span. A dead owner's task has a trace of its own, too.

    Requests carry ``traceparent`` and, if there is one, ``tracestate``. Error types are of a fixed
    list, and no span holds the text of an error. One instance may serve several supervisors.

    :param tracer_provider: default: OpenTelemetry's global one.
    :param messages: put messages and answers, the users' own texts, into the task's spans; default
        ``False``.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, *, messages: bool = False
    ) -> None:
        self._tracer = trace.get_tracer("sigmic_guard", __version__, tracer_provider)
        self._messages = messages
        #: By intent id: those that have not ended.
        self._tasks: dict[str, _Task] = {}

    def observe(self, event: ObservedEvent) -> None:
        """Begin, describe or end the span of a task."""
        if isinstance(event, TaskChanged):
            self._changed(event)
        elif isinstance(event, TaskLeft):
            self._end(event.record)

    def around(self, operation: Operation, record: Record) -> AbstractContextManager[object]:
        """Return the span of one request about a task; a stream's opening has its headers only."""
        return _Request(self._tracer, operation, self._tasks.get(record.intent_id), record)

    def detail(self, record: Record, name: Detail, value: str) -> None:
        """Note the id of a conversation; and, if that is asked for, what is said in it."""
        task = self._tasks.get(record.intent_id)
        if task is None:
            return
        if name == "conversation":
            task.span.set_attribute("gen_ai.conversation.id", value)
        elif self._messages:
            task.say(name, value)

    def _changed(self, change: TaskChanged) -> None:
        before, after = change.before, change.after
        if before is None:
            self._begin(after, orphan=change.event is Event.TAKE_OVER)
        elif before.intent_id != after.intent_id and before.intent_id in self._tasks:
            self._tasks[after.intent_id] = self._tasks.pop(before.intent_id)
        task = self._tasks.get(after.intent_id)
        if task is None:
            return
        if after.remote_id is not None and (before is None or before.remote_id != after.remote_id):
            task.span.set_attribute("sigmic.task.id", after.remote_id)
        if after.over:
            self._end(after)

    def _begin(self, record: Record, *, orphan: bool) -> None:
        # An orphan's birth is told by a worker, whose context is nobody's.
        around = Context() if orphan else contexts.get_current()
        span = self._tracer.start_span(
            "invoke_agent",
            context=around,
            kind=SpanKind.CLIENT,
            attributes={"gen_ai.operation.name": "invoke_agent", **_place(record)},
        )
        self._tasks[record.intent_id] = _Task(span, around)

    def _end(self, record: Record) -> None:
        task = self._tasks.pop(record.intent_id, None)
        if task is None:
            return
        span, outcome, reason = task.span, record.outcome, record.reason
        if outcome is not None:
            span.set_attribute("sigmic.outcome", outcome.value)
        if reason is not None:
            span.set_attribute("sigmic.reason", reason.value)
        for name, texts in task.texts.items():
            span.set_attribute(name, json.dumps(texts, ensure_ascii=False))
        _fail(span, _error_of(record))
        span.end()


class _Task:
    """The span of a task that has not ended."""

    __slots__ = ("_parent", "context", "span", "texts")

    def __init__(self, span: Span, around: Context) -> None:
        self.span = span
        #: That in which its requests are made.
        self.context = trace.set_span_in_context(span, around)
        parent = trace.get_current_span(around)
        #: Whoever asked for it, if that can be seen to end.
        self._parent = parent if parent.is_recording() else None
        #: What was said, by attribute.
        self.texts: dict[str, list[Mapping[str, Any]]] = {}

    @property
    def outlives_its_parent(self) -> bool:
        """Whether the span that was current when it was asked for has ended."""
        return self._parent is not None and not self._parent.is_recording()

    def say(self, name: Detail, text: str) -> None:
        """Add a message of the user's, or an answer."""
        message: dict[str, Any] = {"parts": [{"type": "text", "content": text}]}
        if name == "message":
            where, message["role"] = "gen_ai.input.messages", "user"
        else:
            where, message["role"] = "gen_ai.output.messages", "assistant"
            message["finish_reason"] = "stop"
        self.texts.setdefault(where, []).append(message)


class _Request:
    """The span of a request, current while it is sent; its headers are those of the request."""

    __slots__ = ("_operation", "_record", "_span", "_task", "_tokens", "_tracer")

    def __init__(
        self, tracer: Tracer, operation: Operation, task: _Task | None, record: Record
    ) -> None:
        self._tracer = tracer
        self._operation = operation
        self._task = task
        self._record = record
        self._span: Span | None = None
        self._tokens: tuple[Token[Context], Token[Mapping[str, str] | None]] | None = None

    def __enter__(self) -> None:
        task = self._task
        if task is None:
            return
        context = task.context
        if self._operation != "stream":
            alone = self._operation in _ENDING and task.outlives_its_parent
            self._span = self._tracer.start_span(
                self._operation,
                context=Context() if alone else context,
                kind=SpanKind.CLIENT,
                attributes=_place(self._record),
                links=[Link(task.span.get_span_context())] if alone else None,
            )
            context = trace.set_span_in_context(self._span, Context() if alone else context)
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, context)
        self._tokens = contexts.attach(context), trace_headers.set(headers)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A coroutine that the collector closes is closed in whatever context that happens to run.
        if self._tokens is not None and not isinstance(error, GeneratorExit):
            trace_headers.reset(self._tokens[1])
            contexts.detach(self._tokens[0])
        if self._span is not None:
            _fail(self._span, _error_type(error))
            self._span.end()


def _place(record: Record) -> dict[str, AttributeValue]:
    """Return what is known of every span: whose system this is, and where."""
    url = urlsplit(record.base_url)
    found: dict[str, AttributeValue] = {"gen_ai.provider.name": "sigmic"}
    if record.remote_id is not None:
        found["sigmic.task.id"] = record.remote_id
    if url.hostname is not None:
        found["server.address"] = url.hostname
    port = url.port or _DEFAULT_PORTS.get(url.scheme)
    if port is not None:
        found["server.port"] = port
    return found


def _fail(span: Span, error_type: str | None) -> None:
    if error_type is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(StatusCode.ERROR)


def _error_of(record: Record) -> str | None:
    """Return why a task counts as failed, in a word; to be cancelled is no failure."""
    if not record.over:
        return record.state.value  # left without proof of its end
    if record.state is State.NEVER_CREATED and record.reason is None:
        return record.state.value
    if record.outcome in {Outcome.FAILED, Outcome.TIMED_OUT}:
        return record.outcome.value
    if record.reason is CancelReason.REMOTE:
        return "cancelled_remotely"
    return None


def _error_type(error: BaseException | None) -> str | None:
    """Return why a request failed: an HTTP status, or a word."""
    if error is None:
        return None
    if isinstance(error, SigmicGuardError):
        return bounded_status(status_of(error))
    return "_OTHER" if isinstance(error, Exception) else "cancelled"
