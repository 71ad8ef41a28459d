"""Spans by way of OpenTelemetry, over OTLP/HTTP. Needs the extra `otel`, and is imported where traces are on only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backplane.telemetry import traces
from backplane.telemetry.traces import Attributes, Kind

_LAST_S = 2.0
"""What was not collected when a service ends is waited for so long."""

_KINDS = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
}
_propagator = TraceContextTextMapPropagator()


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Spans of ``service`` are sent while this is open, as OpenTelemetry's environment variables say."""
    resource = Resource.create({SERVICE_NAME: service, SERVICE_NAMESPACE: "parley"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    traces.install(OtelTracer(provider))
    try:
        yield
    finally:
        traces.install(None)
        ending = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        ending.start()
        ending.join(_LAST_S)


class OtelTracer:
    """Who caused a step decides whether it is kept; a step that nobody caused is decided by the provider's sampler."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("parley")

    def begin(
        self, name: str, kind: Kind, parent: str | None, attributes: Attributes, began: datetime | None
    ) -> OtelSpan:
        cause = _propagator.extract({} if parent is None else {"traceparent": parent})
        start = None if began is None else round(began.timestamp() * 1e9)
        return OtelSpan(self._tracer.start_span(name, cause, _KINDS[kind], dict(attributes), start_time=start))


class OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent: str | None = _traceparent(context) if context.is_valid else None

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def happened(self, event: str) -> None:
        self._span.add_event(event)

    def fail(self, kind: str) -> None:
        self._span.set_attribute(ERROR_TYPE, kind)
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()


def _traceparent(context: trace.SpanContext) -> str:
    return (
        f"00-{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}"
        f"-{context.trace_flags & 0x03:02x}"
    )
