"""An HTTP service as Parley has them: problems, request ids, body limits, metrics, health, complete OpenAPI pages."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backplane.ports.identifiers import new_id
from backplane.security.authenticator import Authenticator
from backplane.settings import Settings
from backplane.telemetry import logs, traces
from backplane.telemetry.readiness import Readiness
from backplane.web import authentication, problems

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,128}$")

_DOCUMENTS = re.compile(r"^/v1/collections/[^/]+/documents$")
_BATCHES = re.compile(r"^/v1/batches$")
_PROBES = frozenset(("/healthz", "/readyz", "/metrics"))
_FORM_BYTES = 16 * 1024
"""What a form has around the file in it."""

_requests = Counter("parley_http_requests_total", "HTTP requests", ["method", "route", "status"])
_response_time = Histogram(
    "parley_http_response_seconds",
    "From an HTTP request to where its response begins",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


def make_application(
    title: str,
    settings: Settings,
    authenticator: Authenticator,
    readiness: Readiness,
    routers: Sequence[APIRouter],
    shapes: Sequence[problems.Shape] = (),
) -> FastAPI:
    """A FastAPI application with ``routers``, health endpoints and everything that all of Parley's services share.

    ``shapes`` are those of its doors' errors.
    """
    app = FastAPI(title=title, version="1", docs_url="/docs", redoc_url=None)
    app.state.authenticator = authenticator
    problems.install(app, shapes)
    for router in routers:
        app.include_router(router)
    app.include_router(health_router(readiness))
    larger = (
        (_DOCUMENTS, settings.knowledge.document_bytes + _FORM_BYTES),
        (_BATCHES, settings.limits.batch_bytes),
    )
    app.add_middleware(_Envelope, body_bytes=settings.limits.body_bytes, larger=larger)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            # Each door's SDKs have a dozen headers of their own, and the origins are the operator's choice.
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = document.setdefault("components", {})
        components.setdefault("securitySchemes", {}).update(authentication.SCHEMES)
        schemas = components.setdefault("schemas", {})
        schema = problems.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas["ProblemDocument"] = schema
        # FastAPI documents its own shape for invalid requests, which this application never sends.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for path, operations in document["paths"].items():
            for operation in operations.values():
                is_of_door = any(shape.paths.match(path) and shape.header is None for shape in app.state.shapes)
                if path.startswith("/v1/"):
                    # Who signs in has neither yet; such an operation says so itself.
                    operation.setdefault("security", [{name: []} for name in authentication.SCHEMES])
                elif is_of_door:
                    operation.setdefault("security", [{"api_key": []}])
                invalid = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
                if invalid.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
                    # A door says by itself what goes wrong.
                    del operation["responses"]["422"]
                    if not is_of_door:
                        operation["responses"]["422"] = problems.responses(422)[422]
        app.openapi_schema = document
    return app.openapi_schema


_METRICS_EXAMPLE = 'parley_http_requests_total{method="GET",route="/healthz",status="200"} 3.0\n'


def _shown(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


def health_router(readiness: Readiness) -> APIRouter:
    """`/healthz`, `/readyz` and `/metrics`."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive", responses={200: _shown("It is", {"status": "ok"})})
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/readyz",
        summary="Can it do its work; names what is not ready",
        responses={
            200: _shown("It can", {"status": "ready", "not_ready": {}}),
            503: _shown("It cannot", {"status": "not ready", "not_ready": {"redis": "Redis does not answer"}}),
        },
    )
    async def readyz(response: Response) -> dict[str, Any]:
        reasons = await readiness.reasons()
        response.status_code = 503 if reasons else 200
        return {"status": "not ready" if reasons else "ready", "not_ready": reasons}

    @router.get(
        "/metrics",
        summary="Metrics in the Prometheus text format",
        response_class=Response,
        responses={
            200: {
                "description": "All metrics of this process",
                "content": {"text/plain": {"schema": {"type": "string"}, "example": _METRICS_EXAMPLE}},
            }
        },
    )
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


class _Envelope:
    """Outermost: gives the request its id and its span, bounds its body, counts it.

    ``larger``: of paths that stream theirs.
    """

    def __init__(self, app: ASGIApp, body_bytes: int, larger: Sequence[tuple[re.Pattern[str], int]]) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if scope["path"] in _PROBES:
            return await self._serve(scope, receive, send, traces.NO_SPAN)
        parent = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        about = {"http.request.method": scope["method"]}
        with traces.span(scope["method"], about, kind=traces.Kind.SERVER, parent=parent) as span:
            return await self._serve(scope, receive, send, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: traces.Span) -> None:
        began = time.monotonic()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        scope.setdefault("state", {})["request_id"] = given if _REQUEST_ID.match(given) else str(new_id())
        logs.concerns(request_id=scope["state"]["request_id"])
        received = 0
        most = next((size for path, size in self._larger if path.match(scope["path"])), self._body_bytes)

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, _too_large(most))
            return message

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = scope["state"]["request_id"]
                route = getattr(scope.get("route"), "path", "unmatched")
                _requests.labels(scope["method"], route, message["status"]).inc()
                _response_time.labels(scope["method"], route).observe(time.monotonic() - began)
                span.rename(f"{scope['method']} {route}")
                span.note({"http.route": route, "http.response.status_code": message["status"]})
                if message["status"] >= 500:
                    span.fail(str(message["status"]))
            await send(message)

        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            problem = problems.Problem(413, "too-large", "Too large", _too_large(most))
            return await problems.problem_response(Request(scope), problem)(scope, receive, named)
        return await self._app(scope, bounded, named)


def _too_large(most: int) -> str:
    return f"The body has over {most} bytes, which is the limit."
