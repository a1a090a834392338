"""``Tracing``: one span a task, one for each request about it, and what they tell."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from anyio import fail_after
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from prometheus_client import CollectorRegistry

from sigmic_guard import CancelReason, Supervisor, TaskFailed, TaskTimedOut
from sigmic_guard.integrations.otel import Tracing
from sigmic_guard.lifecycle import Event
from sigmic_guard.observe import Observers, TaskChanged
from sigmic_guard.testing import HANG
from tests.backends import ASYNCIO, TRIO_VIRTUAL
from tests.observe import lives
from tests.sigmic.raw_server import Exchange, raw_server, success
from tests.supervisor.lab import FORBIDDEN, UNAVAILABLE, Lab

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


class Traces:
    """A provider, and what was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("host")

    def tracing(self, **options: Any) -> Tracing:
        return Tracing(self.provider, **options)

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span


@pytest.fixture
def traces() -> Traces:
    return Traces()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def identity(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.span_id
    return found


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.trace_id
    return found


async def test_a_task_is_a_span_of_whoever_asked_for_it(traces: Traces) -> None:
    """The span has the conventions' names, and the create is its child."""
    lab = Lab(duration=0.0)
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        with traces.tracer.start_as_current_span("request") as request:
            result = await supervisor.run("m")
    span = traces.one("invoke_agent")
    assert parent(span) == request.get_span_context().span_id
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    told = attributes(span)
    told.pop("gen_ai.conversation.id", None)
    assert told == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "sigmic",
        "server.address": "sigmic.test",
        "server.port": 443,
        "sigmic.task.id": result.id,
        "sigmic.outcome": "completed",
    }
    assert parent(traces.one("create")) == identity(span)


async def test_a_cancellation_is_a_child_with_its_reason(traces: Traces) -> None:
    """A task that was cancelled is no failure."""
    lab = Lab()
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        task = await supervisor.start("m", confirm="terminal")
        await task.cancel()
    span = traces.one("invoke_agent")
    assert attributes(span)["sigmic.outcome"] == "cancelled"
    assert attributes(span)["sigmic.reason"] == "user"
    assert "error.type" not in attributes(span)
    for name in ("create", "cancel", "confirm"):
        child = traces.one(name)
        assert (parent(child), trace_id(child)) == (identity(span), trace_id(span))
        assert attributes(child).get("sigmic.task.id") == (None if name == "create" else task.id)
        assert not child.links


async def test_a_cancel_after_the_end_of_the_request_is_a_trace_of_its_own(traces: Traces) -> None:
    """It is linked to the task's span, which goes on."""
    lab = Lab()
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        with traces.tracer.start_as_current_span("request") as request:
            task = await supervisor.start("m")
        await task.cancel()
    span, cancel = traces.one("invoke_agent"), traces.one("cancel")
    assert trace_id(span) == request.get_span_context().trace_id != trace_id(cancel)
    assert parent(cancel) is None
    [link] = cancel.links
    assert link.context.span_id == identity(span)
    assert parent(traces.one("create")) == identity(span)


async def test_requests_that_fail_say_how(traces: Traces) -> None:
    """By status, each attempt for itself; no text of an error is in a span."""
    lab = Lab()
    lab.fake.on("delete", UNAVAILABLE, None)
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        task = await supervisor.start("m")
        await task.cancel()
    first, second = traces.named("cancel")
    assert attributes(first)["error.type"] == "503"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description is None
    assert not first.events
    assert "error.type" not in attributes(second)


async def test_a_create_that_was_refused(traces: Traces) -> None:
    lab = Lab()
    lab.fake.on("create", FORBIDDEN)
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        with pytest.raises(type(FORBIDDEN)):
            await supervisor.run("m")
    assert attributes(traces.one("create"))["error.type"] == "403"
    assert attributes(traces.one("invoke_agent"))["error.type"] == "never_created"


async def test_tasks_that_fail_or_are_late(traces: Traces) -> None:
    lab = Lab()
    lab.fake.script("fails", duration=0.0, fail="out of luck")
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        with pytest.raises(TaskFailed):
            await supervisor.run("fails")
        with pytest.raises(TaskTimedOut):
            await supervisor.run("m", timeout=0.1)
    failed, late = traces.named("invoke_agent")
    assert attributes(failed)["error.type"] == "failed"
    assert attributes(late)["error.type"] == "timed_out"
    assert attributes(late)["sigmic.reason"] == "deadline"


async def test_a_task_whose_end_was_not_proven(traces: Traces) -> None:
    """Its span ends with the supervisor, and says so."""
    lab = Lab()
    lab.fake.always("delete", FORBIDDEN)
    async with lab.open(left=1, observers=[traces.tracing()], grace=0.5) as supervisor:
        await supervisor.start("m")
    span = traces.one("invoke_agent")
    assert attributes(span)["error.type"] == "unconfirmed"
    assert attributes(span)["sigmic.reason"] == "shutdown"


async def test_messages_are_told_when_that_is_asked_for(traces: Traces) -> None:
    """What was said and answered, follow-ups included."""
    lab = Lab()
    observers = [traces.tracing(messages=True)]
    async with lab.open(observers=observers) as supervisor, supervisor.task("question") as task:
        lab.fake.complete(task.id, "answer")
        await task.result()
        await task.send("and?")
        lab.fake.complete(task.id, "more")
        await task.result()
    told = attributes(traces.one("invoke_agent"))
    asked = json.loads(told["gen_ai.input.messages"])
    answered = json.loads(told["gen_ai.output.messages"])
    assert [message["parts"][0]["content"] for message in asked] == ["question", "and?"]
    assert [message["parts"][0]["content"] for message in answered] == ["answer", "more"]
    assert parent(traces.one("send")) == identity(traces.one("invoke_agent"))


async def test_nothing_that_was_said_is_in_a_span_by_default(traces: Traces) -> None:
    """Nor are secrets, environments and keys, ever."""
    said = ["question", "the-answer", "S3CRET", "VALUE", "key-7"]
    told = list[list[str]]()
    for messages in (False, True):
        lab = Lab()
        async with (
            lab.open(observers=[traces.tracing(messages=messages)]) as supervisor,
            supervisor.task(
                "question", secrets={"A": "S3CRET"}, env={"B": "VALUE"}, key="key-7"
            ) as task,
        ):
            lab.fake.complete(task.id, "the-answer")
            await task.result()
        spans = " ".join(span.to_json() for span in traces.all)
        told.append([text for text in said if text in spans])
    assert told == [[], said[:2]]


async def test_the_conversation_is_told_where_it_is_known(traces: Traces) -> None:
    lab = Lab()
    async with lab.open(observers=[traces.tracing()]) as supervisor:
        task = await supervisor.start("m")
        lab.fake.complete(task.id, "answer")
        await task.wait()
    conversation = lab.fake._world.detail(task.id).conversation_id
    assert conversation is not None
    assert attributes(traces.one("invoke_agent"))["gen_ai.conversation.id"] == conversation


async def test_what_a_dead_owner_left_is_a_trace_of_its_own(traces: Traces) -> None:
    """Whoever takes it over was not asked for it by anybody."""
    tracing = traces.tracing()
    with traces.tracer.start_as_current_span("somebody else's"):
        left = lives.taken_over(*lives.CREATED)
        tracing.observe(TaskChanged(None, left, Event.TAKE_OVER))
        after = lives.moved(left, Event.FAIL, left.created_at + 90, CancelReason.USER)
        tracing.observe(lives.changed(left, after, Event.FAIL))
    span = traces.one("invoke_agent")
    assert parent(span) is None
    assert attributes(span)["sigmic.task.id"] == lives.ID


async def test_no_span_is_kept_when_its_task_has_ended(traces: Traces) -> None:
    lab, tracing = Lab(duration=0.0), traces.tracing()
    async with lab.open(observers=[tracing]) as supervisor:
        for _ in range(5):
            await supervisor.run("m")
    assert not tracing._tasks
    assert len(traces.named("invoke_agent")) == 5


async def test_workers_carry_no_span_of_a_task(traces: Traces) -> None:
    """What is current while a request is sent is so no more afterwards, however that ends."""
    tracing = traces.tracing()
    record = lives.born()
    tracing.observe(TaskChanged(None, record, None))
    before = context.get_current()
    for error in (None, ValueError()):
        with suppress(ValueError), Observers([tracing]).around("create", record):
            assert trace.get_current_span().get_span_context().is_valid
            if error:
                raise error
        assert context.get_current() == before


class Broken(Tracing):
    """Raises wherever it is asked anything."""

    def around(self, *_: object) -> Any:
        raise RuntimeError

    def detail(self, *_: object) -> Any:
        raise RuntimeError


async def test_a_tracer_that_raises_changes_nothing(
    traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and every task goes its way."""
    lab = Lab()
    observers = [Broken(traces.provider)]
    async with lab.open(observers=observers) as supervisor, supervisor.task("m") as task:
        lab.fake.complete(task.id, "fine")
        assert (await task.result()).final_response == "fine"
    [told] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.getMessage().startswith("Broken failed")


@pytest.mark.backends(ASYNCIO)
@pytest.mark.parametrize("traced", [True, False])
async def test_requests_carry_the_trace(traces: Traces, traced: bool) -> None:
    """Create and DELETE name the spans that are theirs; without a tracer there is no header."""
    heads: dict[str, list[str]] = {}

    async def serve(exchange: Exchange) -> None:
        while request := await exchange.request():
            head = request.split(b"\r\n\r\n")[0].decode()
            method = head.split()[0]
            found = [line for line in head.splitlines() if line.lower().startswith("trace")]
            heads[method] = found
            answers = {"POST": {"id": "one"}, "DELETE": {"message": "Task cancelled"}}
            await exchange.send(success(answers.get(method, [])))

    observers = [traces.tracing()] if traced else []
    async with (
        raw_server(serve) as server,
        Supervisor(
            api_key="sigmic_key",
            base_url=server.url,
            ledger="memory:",
            registry=CollectorRegistry(),
            observers=observers,
        ) as supervisor,
    ):
        with fail_after(10):
            task = await supervisor.start("m")
            await task.cancel()
    for method, name in {"POST": "create", "DELETE": "cancel"}.items():
        expected = []
        if traced:
            span = traces.one(name)
            ids = f"{format_trace_id(trace_id(span))}-{format_span_id(identity(span))}"
            expected = [f"traceparent: 00-{ids}"]
        assert [line[:-3] for line in heads[method]] == expected  # without its flags


def test_without_the_extra_it_says_what_to_install() -> None:
    """And the library itself asks for nothing of it."""
    program = """
import sys
sys.modules["opentelemetry"] = None
import sigmic_guard
try:
    import sigmic_guard.integrations.otel
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "pip install 'sigmic-guard[otel]'" in done.stdout


async def test_a_struck_worker_ends_its_span(traces: Traces) -> None:
    """A shutdown that has no more time for a request does not leave its span open."""
    lab = Lab()
    lab.fake.always("delete", HANG)
    async with lab.open(left=1, observers=[traces.tracing()], grace=0.3) as supervisor:
        await supervisor.start("m")
    assert traces.named("cancel")
    assert all(attributes(span)["error.type"] for span in traces.named("cancel"))
