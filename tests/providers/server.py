"""Providers to test against: a server that speaks OpenAI's and Anthropic's APIs to the letter, faults included.

It knows no model: what it answers, how fast, and what breaks is in scripts (`tests.providers.script`).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from aiohttp import web

from tests.providers.answer import answer
from tests.providers.anthropic_api import Anthropic, Bedrock, Vertex
from tests.providers.api import Api
from tests.providers.delivery import Delivery
from tests.providers.ledger import Entry, Ledger, Outcome
from tests.providers.limiter import Limiter, OverLimit
from tests.providers.model import Model, default_models
from tests.providers.openai_api import AzureDeployment, AzureV1, OpenAi
from tests.providers.problem import Problem, scripted
from tests.providers.script import STATUS_FAULTS, Playbook, Script

KeyStatus = Literal["good", "revoked", "no_quota"]
_MOST_BODY = 64 * 1024 * 1024
_PATHS: dict[str, type[Api]] = {
    "/v1/chat/completions": OpenAi,
    "/openai/v1/chat/completions": AzureV1,
    "/openai/deployments/{deployment}/chat/completions": AzureDeployment,
    "/v1/messages": Anthropic,
    "/model/{model}/invoke": Bedrock,
    "/model/{model}/invoke-with-response-stream": Bedrock,
    "/v1/projects/{project}/locations/{location}/publishers/anthropic/models/{model:[^/]+}:rawPredict": Vertex,
    "/v1/projects/{project}/locations/{location}/publishers/anthropic/models/{model:[^/]+}:streamRawPredict": Vertex,
}


@dataclass(frozen=True)
class _Key:
    status: KeyStatus
    limiter: Limiter


class Providers:
    """The running server, and what tests tell it and ask it."""

    def __init__(
        self, default: Script, mix: Mapping[str, float], seed: int, window_s: float, extra_parameters: frozenset[str]
    ) -> None:
        self.url = ""
        """Without a path: for Anthropic, Bedrock and Azure."""
        self.ledger = Ledger()
        self.models: dict[str, Model] = default_models()
        self._playbook = Playbook(default, mix, random.Random(seed))
        self._window_s = window_s
        self._extra = extra_parameters
        self._keys: dict[str, _Key] = {}
        self._stopping = False

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's SDK, and for Vertex AI's."""
        return f"{self.url}/v1"

    @property
    def default(self) -> Script:
        """What a request gets that no other script waits for."""
        return self._playbook.default

    @default.setter
    def default(self, script: Script) -> None:
        self._playbook.default = script

    def queue(self, *scripts: Script, key: str | None = None) -> None:
        """The next admitted requests (of ``key``) get ``scripts``, one each."""
        self._playbook.queue(*scripts, key=key)

    def add_key(
        self,
        key: str,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrent: int | None = None,
        status: KeyStatus = "good",
        script: Script | None = None,
        window_s: float | None = None,
    ) -> None:
        """Adds a key, or replaces it with fresh limits. The "minute" of its limits is ``window_s`` seconds, by default
        the server's. Tokens count as input plus ``max_tokens`` at admission, and as what was used once it is over.
        ``script`` is what this key always gets.
        """
        window = self._window_s if window_s is None else window_s
        limiter = Limiter(requests_per_minute, tokens_per_minute, concurrent, window, time.monotonic)
        self._keys[key] = _Key(status, limiter)
        if script is not None:
            self._playbook.of_key[key] = script

    async def until(self, holds: Callable[[], bool], within_s: float = 5.0) -> None:
        """Waits until ``holds``, which is asked whenever the ledger changes. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not holds():
                await self.ledger.change()

    def stop(self) -> None:
        """From now on, requests that end have not been aborted."""
        self._stopping = True

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=_MOST_BODY)
        for path, api in _PATHS.items():
            application.router.add_post(path, self._handler(api))
        application.router.add_get("/v1/models", self._list_models)
        application.router.add_get("/_ledger", self._show_ledger)
        return application

    def _handler(self, api: type[Api]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, api(request))

        return handle

    async def _answer(self, request: web.Request, api: Api) -> web.StreamResponse:
        body: Any = None
        with suppress(ValueError):
            body = json.loads(await request.read())
        key = api.key()
        headers = {name.lower(): value for name, value in request.headers.items()}
        tag = headers.get("x-client-request-id") or headers.get("x-request-tag")
        if tag is None and isinstance(body, dict):
            tag = api.user(body)
        entry = self.ledger.open(key or "", tag, request.path, headers, body)
        try:
            return await self._admit(request, api, key, entry)
        except Problem as problem:
            status, error, extra = api.error(problem)
            entry.status = status
            self.ledger.close(entry, "refused", ran=False)
            known = self._keys.get(key or "")
            return web.json_response(
                error, status=status, headers={**api.headers(known.limiter if known else None), **extra}
            )

    async def _admit(self, request: web.Request, api: Api, key: str | None, entry: Entry) -> web.StreamResponse:
        known = self._known(key)
        if request.content_type != "application/json":
            raise Problem("invalid", f"Unsupported content type: '{request.content_type}'.")
        asked = api.asked(entry.body, self.models, self._extra)
        admitted = known.limiter.admit(asked.input_tokens + (asked.most_tokens or 0), self.ledger[entry.key].running)
        if isinstance(admitted, OverLimit):
            self.ledger.close(entry, "over_limit", ran=False)
            raise _over_limit(admitted, asked.model)
        script = self._playbook.next(entry.key)
        entry.fault = script.fault
        self.ledger.run(entry)

        def over(outcome: Outcome) -> None:
            admitted.tokens = entry.input_tokens + entry.output_tokens
            self.ledger.close(entry, outcome, ran=True)

        try:
            if script.fault in STATUS_FAULTS or (script.fault == "stream_error" and not asked.stream):
                over("failed")
                fault = script.fault if script.fault != "stream_error" else "500"
                raise scripted(fault, asked.model, script.retry_after)
            delivery = Delivery(request, api, script, entry, self.ledger, over)
            entry.input_tokens = asked.input_tokens
            if script.fault == "cut_early":
                return await delivery.cut()
            if script.fault == "hang_early":
                await delivery.hang()
            said = answer(
                asked,
                script if api.interleaves else replace(script, interleaved=False),
                call_prefix=api.call_prefix,
            )
            deliver = delivery.stream if asked.stream else delivery.whole
            return await deliver(said, asked, api.headers(known.limiter))
        except (asyncio.CancelledError, ConnectionError):
            over("stopped" if self._stopping else "aborted")
            raise

    def _known(self, key: str | None) -> _Key:
        if key is None:
            raise Problem("key", "You didn't provide an API key.")
        known = self._keys.get(key)
        if known is None or known.status == "revoked":
            raise Problem("key", f"Incorrect API key provided: {key[:3]}***.")
        if known.status == "no_quota":
            raise Problem("quota", "You exceeded your current quota, please check your plan and billing details.")
        return known

    async def _list_models(self, request: web.Request) -> web.Response:
        api = OpenAi(request)
        try:
            self._known(api.key())
        except Problem as problem:
            status, error, _ = api.error(problem)
            return web.json_response(error, status=status, headers=api.headers(None))
        models = [{"id": n, "object": "model", "created": 1686935002, "owned_by": "tests"} for n in self.models]
        return web.json_response({"object": "list", "data": models}, headers=api.headers(None))

    async def _show_ledger(self, request: web.Request) -> web.Response:
        return web.json_response(self.ledger.as_json())


def _over_limit(over: OverLimit, model: str) -> Problem:
    message = (
        f"Rate limit reached for {model} on {over.kind} per min: Limit {over.limit}, Used {over.used}, Requested "
        f"{over.asked}. Please try again in {over.retry_after_s:.3f}s."
    )
    return Problem("rate_limit", message, param=over.kind, retry_after_s=over.retry_after_s)


@asynccontextmanager
async def providers(
    *,
    port: int = 0,
    default: Script | None = None,
    mix: Mapping[str, float] | None = None,
    seed: int = 0,
    window_s: float = 60.0,
    extra_parameters: frozenset[str] = frozenset(),
) -> AsyncIterator[Providers]:
    """Serves on 127.0.0.1 until the block ends; 0 finds a free port.

    ``default`` is what requests get, except for the shares of ``mix`` (fault → share), which ``seed`` draws.
    ``extra_parameters`` are names that the OpenAI-compatible server knows besides OpenAI's. ``window_s`` is the length
    in seconds of what limits call a minute.
    """
    server = Providers(default or Script(), mix or {}, seed, window_s, extra_parameters)
    # A handler is cancelled as soon as its connection is lost, which is how an abort is noticed at once.
    runner = web.AppRunner(server.application(), handler_cancellation=True, shutdown_timeout=0, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        server.stop()
        await runner.cleanup()
