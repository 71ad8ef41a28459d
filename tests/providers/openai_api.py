"""Requests to OpenAI's API, and to Azure's forms of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from tests.providers import openai_rules, openai_wire
from tests.providers.answer import Answer, Asked
from tests.providers.api import Refusal
from tests.providers.frame import Frame, compact, data_only
from tests.providers.limiter import Limiter
from tests.providers.model import Model
from tests.providers.problem import Problem
from tests.providers.script import Script


class OpenAi:
    """``POST /v1/chat/completions``."""

    stream_type = "text/event-stream; charset=utf-8"
    call_prefix = "call_"
    interleaves = True
    _azure = False

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._request_id = f"req_{uuid.uuid4().hex}"
        self._id = f"chatcmpl-{uuid.uuid4().hex}"

    def key(self) -> str | None:
        scheme, _, key = self._request.headers.get("authorization", "").partition(" ")
        return key or None if scheme == "Bearer" else None

    def user(self, body: Mapping[str, Any]) -> str | None:
        user = body.get("user") or body.get("safety_identifier")
        return user if isinstance(user, str) else None

    def asked(self, body: Any, models: Mapping[str, Model], extra: frozenset[str]) -> Asked:
        return openai_rules.asked(body, models, extra)

    def frames(self, answer: Answer, asked: Asked, script: Script) -> Iterator[Frame]:
        return openai_wire.frames(answer, asked, self._head(asked), script.usage, self._azure)

    def encode(self, frame: Frame) -> bytes:
        return data_only(frame)

    def body(self, answer: Answer, asked: Asked, script: Script) -> dict[str, Any]:
        return openai_wire.body(answer, asked, self._head(asked), script.usage)

    def stream_error(self) -> bytes:
        return f"data: {compact(openai_wire.stream_error())}\n\n".encode()

    def error(self, problem: Problem) -> Refusal:
        wait = problem.retry_after_s
        status, body = openai_wire.error(problem, self._azure)
        return status, body, {} if wait is None else openai_wire.retry_headers(wait)

    def headers(self, limiter: Limiter | None) -> dict[str, str]:
        limits = {} if limiter is None else openai_wire.limit_headers(limiter)
        return {"x-request-id": self._request_id, "openai-version": "2020-10-01", **limits}

    def _head(self, asked: Asked) -> dict[str, Any]:
        return {"id": self._id, "created": int(time.time()), "model": asked.model}


class AzureV1(OpenAi):
    """``POST /openai/v1/chat/completions``: OpenAI's API where the key may also come as ``api-key``.

    Source: Azure OpenAI "API version lifecycle", section "API evolution".
    """

    _azure = True

    def key(self) -> str | None:
        return self._request.headers.get("api-key") or super().key()


class AzureDeployment(AzureV1):
    """``POST /openai/deployments/{deployment}/chat/completions?api-version=…``: the path names the model.

    Source: Azure OpenAI REST API reference, "Chat completions".
    """

    def asked(self, body: Any, models: Mapping[str, Model], extra: frozenset[str]) -> Asked:
        if not self._request.query.get("api-version"):
            raise Problem("unsupported_version", "Resource not found")
        deployment = self._request.match_info["deployment"]
        return openai_rules.asked(body, models, extra, deployment)
