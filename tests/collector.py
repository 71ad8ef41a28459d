"""A collector of traces, as OpenTelemetry's own takes them over OTLP/HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Collected:
    service: str
    span: Span

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, str]:
        """As text, whatever their type."""
        return {one.key: str(getattr(one.value, one.value.WhichOneof("value"))) for one in self.span.attributes}


@dataclass
class Collector:
    url: str = ""
    _spans: list[Collected] = field(default_factory=list)

    @property
    def all(self) -> list[Collected]:
        return list(self._spans)

    def of(self, trace_id: str) -> list[Collected]:
        """What came of one trace, in order of time."""
        found = [one for one in self.all if one.span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda one: one.span.start_time_unix_nano)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of_resource = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert of_resource["service.namespace"] == "parley"
            for scope in resource.scope_spans:
                self._spans += [Collected(of_resource["service.name"], span) for span in scope.spans]


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens on a free port while this is open."""
    collecting = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            collecting.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collecting.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield collecting
        finally:
            server.shutdown()
            serving.join()
