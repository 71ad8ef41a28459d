"""Requests to Anthropic's API, and to Bedrock's and Vertex AI's forms of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from tests.providers import anthropic_rules, anthropic_wire, bedrock_wire
from tests.providers.answer import Answer, Asked
from tests.providers.anthropic_turns import LATEST
from tests.providers.api import Refusal
from tests.providers.frame import Frame, compact, named
from tests.providers.limiter import Limiter
from tests.providers.model import Model
from tests.providers.problem import Kind, Problem
from tests.providers.script import Script


class Anthropic:
    """``POST /v1/messages``."""

    stream_type = "text/event-stream; charset=utf-8"
    call_prefix = "toolu_"
    interleaves = False

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._request_id = f"req_{uuid.uuid4().hex[:24]}"
        self._id = f"msg_{uuid.uuid4().hex[:24]}"

    def key(self) -> str | None:
        return self._request.headers.get("x-api-key") or self._bearer()

    def user(self, body: Mapping[str, Any]) -> str | None:
        metadata = body.get("metadata")
        user = metadata.get("user_id") if isinstance(metadata, dict) else None
        return user if isinstance(user, str) else None

    def asked(self, body: Any, models: Mapping[str, Model], extra: frozenset[str]) -> Asked:
        return anthropic_rules.asked(body, models, self._request.headers.get("anthropic-version"))

    def frames(self, answer: Answer, asked: Asked, script: Script) -> Iterator[Frame]:
        return anthropic_wire.frames(answer, self._head(asked), script.usage)

    def encode(self, frame: Frame) -> bytes:
        return named(frame)

    def body(self, answer: Answer, asked: Asked, script: Script) -> dict[str, Any]:
        return anthropic_wire.body(answer, self._head(asked), script.usage)

    def stream_error(self) -> bytes:
        return f"event: error\ndata: {compact(anthropic_wire.stream_error())}\n\n".encode()

    def error(self, problem: Problem) -> Refusal:
        wait = problem.retry_after_s
        status, body = anthropic_wire.error(problem, self._request_id)
        return status, body, {} if wait is None else anthropic_wire.retry_headers(wait)

    def headers(self, limiter: Limiter | None) -> dict[str, str]:
        limits = {} if limiter is None else anthropic_wire.limit_headers(limiter)
        return {"request-id": self._request_id, **limits}

    def _bearer(self) -> str | None:
        scheme, _, key = self._request.headers.get("authorization", "").partition(" ")
        return key or None if scheme == "Bearer" else None

    def _head(self, asked: Asked) -> dict[str, Any]:
        return {"id": self._id, "model": asked.model}


class Bedrock(Anthropic):
    """``POST /model/{model}/invoke-with-response-stream`` and ``/invoke``.

    The key is the access key id of the signature, which is not verified, or a bearer token (Amazon Bedrock user guide,
    "API keys").
    """

    stream_type = bedrock_wire.CONTENT_TYPE

    def key(self) -> str | None:
        authorization = self._request.headers.get("authorization", "")
        signed = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/[^/]+/bedrock/aws4_request, ?SignedHeaders=[^,]*host[^,]*, ?"
            r"Signature=[0-9a-f]{64}",
            authorization,
        )
        return signed[1] if signed else self._bearer()

    def asked(self, body: Any, models: Mapping[str, Model], extra: frozenset[str]) -> Asked:
        stream = self._request.path.endswith("-stream")
        if isinstance(body, dict) and "stream" in body:
            raise Problem("invalid", "stream: Extra inputs are not permitted")
        named_ = {**body, "stream": stream} if isinstance(body, dict) else body
        name = self._request.match_info["model"]
        versions = {"bedrock-2023-05-31"}
        if (model := models.get(name)) is None or model.latest_on_bedrock:
            versions.add(LATEST)
        return anthropic_rules.asked(named_, models, model=name, versions=frozenset(versions))

    def frames(self, answer: Answer, asked: Asked, script: Script) -> Iterator[Frame]:
        for frame in super().frames(answer, asked, script):
            if isinstance(frame.data, dict) and frame.data["type"] == "message_stop":
                added = bedrock_wire.metrics(answer.counted.input, answer.counted.output)
                yield Frame("closing", {**frame.data, **added})
            else:
                yield frame

    def encode(self, frame: Frame) -> bytes:
        return bedrock_wire.chunk(frame)

    def stream_error(self) -> bytes:
        return bedrock_wire.exception()

    def error(self, problem: Problem) -> Refusal:
        return bedrock_wire.error(problem)

    def headers(self, limiter: Limiter | None) -> dict[str, str]:
        return {"x-amzn-requestid": self._request_id}


class Vertex(Anthropic):
    """``POST /v1/projects/{project}/locations/{location}/publishers/anthropic/models/{model}:streamRawPredict``, and
    ``:rawPredict``.

    Source: Vertex AI documentation, "Request predictions with Claude models"; errors of Google's own: Google AIP-193.
    """

    _ERRORS: Mapping[Kind, tuple[int, str]] = {
        "key": (401, "UNAUTHENTICATED"),
        "forbidden": (403, "PERMISSION_DENIED"),
        "not_found": (404, "NOT_FOUND"),
        "rate_limit": (429, "RESOURCE_EXHAUSTED"),
        "quota": (429, "RESOURCE_EXHAUSTED"),
        "unavailable": (503, "UNAVAILABLE"),
    }

    def key(self) -> str | None:
        return self._bearer()

    def asked(self, body: Any, models: Mapping[str, Model], extra: frozenset[str]) -> Asked:
        name = self._request.match_info["model"]
        asked = anthropic_rules.asked(body, models, model=name, versions=frozenset({"vertex-2023-10-16", LATEST}))
        if asked.stream != self._request.path.endswith(":streamRawPredict"):
            raise Problem("invalid", "stream: does not agree with the method of the path")
        return asked

    def error(self, problem: Problem) -> Refusal:
        if problem.kind not in self._ERRORS:
            return super().error(problem)
        status, name = self._ERRORS[problem.kind]
        return status, {"error": {"code": status, "message": problem.message, "status": name}}, {}

    def headers(self, limiter: Limiter | None) -> dict[str, str]:
        return {"request-id": self._request_id}
