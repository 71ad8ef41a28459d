"""Spans, and what OpenTelemetry makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from backplane.telemetry import traces
from backplane.telemetry.otel import OtelTracer

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{CLIENT}-01"


@pytest.fixture
def kept() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.install(OtelTracer(provider))
    yield exporter
    traces.install(None)
    provider.shutdown()


def by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in kept.get_finished_spans()}


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span, parent."""
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


def test_steps_are_caused_by_those_that_they_are_part_of(kept: InMemorySpanExporter) -> None:
    with traces.span("request", kind=traces.Kind.SERVER, parent=GIVEN) as request:
        assert traces.current() == request.traceparent
        with traces.span("within"):
            assert traces.current() != request.traceparent
        assert traces.current() == request.traceparent
    assert traces.current() is None
    traces.begin("after", parent=request.traceparent).end()
    found = by_name(kept)
    trace_id, request_id, parent = ids(found["request"])
    assert (trace_id, parent) == (TRACE, CLIENT)
    assert request.traceparent == f"00-{TRACE}-{request_id}-01"
    for name in ("within", "after"):
        assert (ids(found[name])[0], ids(found[name])[2]) == (TRACE, request_id)


@pytest.mark.parametrize(
    "given", ["", "nonsense", f"00-{'0' * 32}-{CLIENT}-01", f"ff-{TRACE}-{CLIENT}-01", "00-é-é-01"]
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(kept: InMemorySpanExporter, given: str) -> None:
    with traces.span("request", kind=traces.Kind.SERVER, parent=given):
        pass
    trace_id, _, parent = ids(by_name(kept)["request"])
    assert parent is None
    assert trace_id != TRACE


def test_who_is_not_to_be_sampled_is_not_kept_and_neither_is_what_it_causes(kept: InMemorySpanExporter) -> None:
    with traces.span("request", kind=traces.Kind.SERVER, parent=GIVEN[:-1] + "0") as request:
        with traces.span("within"):
            pass
        assert request.traceparent is not None
        assert request.traceparent.startswith(f"00-{TRACE}-")
        assert request.traceparent.endswith("-00")
    assert kept.get_finished_spans() == ()


def test_only_a_request_begins_a_trace(kept: InMemorySpanExporter) -> None:
    with traces.span("nobody asked"):
        assert traces.current() is None
    assert kept.get_finished_spans() == ()


def test_what_goes_wrong_is_named_without_its_words(kept: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), traces.span("step", parent=GIVEN):
        raise ValueError("secret words")
    step = by_name(kept)["step"]
    assert step.status.status_code is StatusCode.ERROR
    assert dict(step.attributes or {}) == {"error.type": "ValueError"}
    assert "secret" not in step.to_json()


def test_a_step_can_have_begun_before(kept: InMemorySpanExporter) -> None:
    began = datetime.now(UTC) - timedelta(seconds=5)
    step = traces.begin("queue", parent=GIVEN, began=began)
    step.note({"parley.pool": "local"})
    step.happened("half of it")
    step.rename("waited")
    step.end()
    told = by_name(kept)["waited"]
    assert told.start_time is not None
    assert told.end_time is not None
    assert 5 <= (told.end_time - told.start_time) / 1e9 < 60
    assert dict(told.attributes or {}) == {"parley.pool": "local"}
    assert [event.name for event in told.events] == ["half of it"]


def test_nothing_is_made_where_nobody_collects() -> None:
    assert not traces.are_kept()
    assert traces.begin("step", parent=GIVEN) is traces.NO_SPAN
    with traces.span("request", kind=traces.Kind.SERVER, parent=GIVEN) as request:
        assert request is traces.NO_SPAN
        assert traces.current() is None


def test_where_the_sdk_is_disabled_the_traceparent_of_the_client_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = OtelTracer(TracerProvider(shutdown_on_exit=False))
    assert tracer.begin("request", traces.Kind.SERVER, None, {}, None).traceparent is None
    assert tracer.begin("request", traces.Kind.SERVER, GIVEN, {}, None).traceparent == GIVEN
