"""OpenAI, Azure OpenAI, and every server that speaks like them, through OpenAI's own SDK.

The SDK makes the request, knows the keys' headers and names what went wrong. The stream it hands over raw: its models
of each chunk cost several times what reading the JSON does.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import orjson

from workers.inference import token_logprobs
from workers.inference.event_stream import EventTooLarge, events
from workers.inference.openai_wire import Ending, read_chunk, request_body
from workers.inference.port import BackendError, BackendUnavailable, InferenceRequest, Item, Limits, NotServed, Progress
from workers.inference.provider_answers import never_connected, openai_limits, refusal, retry_after

logger = logging.getLogger(__name__)

_CONNECT_S = 10.0
_WINDOW = re.compile(r"maximum context length is (\d+) tokens")
_NO_KEY = "none"
"""What servers that want no key are sent, since the SDK insists on one."""


class OpenAIBackend:
    """``base_url`` None is OpenAI itself. ``azure_api_version`` set: ``base_url`` is that of an Azure resource, and
    models are its deployments. ``slots`` requests run at a time; the others wait their turn. ``usage``: the server can
    tell at the end what was used."""

    def __init__(
        self, base_url: str | None, *, slots: int, azure_api_version: str | None = None, usage: bool = True
    ) -> None:
        self._base_url = base_url
        self._azure_api_version = azure_api_version
        self._slots = asyncio.Semaphore(slots)
        self._slot_count = slots
        self._usage = usage
        self._max_tokens_field = (
            "max_completion_tokens" if base_url is None or azure_api_version is not None else "max_tokens"
        )
        self._http: Any = None
        self._running: set[Any] = set()

    async def start(self, progress: Progress) -> None:
        """Raises BackendUnavailable: ``engine_missing``."""
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise BackendUnavailable(
                "engine_missing", f"the openai SDK can't be imported ({error}); run `make install` again"
            ) from error
        self._openai = openai
        self._httpx = httpx2
        self._client = lru_cache(maxsize=256)(self._make_client)
        self._http = openai.DefaultAioHttpClient(
            limits=httpx2.Limits(max_connections=self._slot_count, max_keepalive_connections=self._slot_count),
            # How long to wait for tokens is the attempt's affair.
            timeout=httpx2.Timeout(None, connect=_CONNECT_S),
        )
        progress("the provider's client is ready", 1.0)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        self._check_open()
        body = request_body(request, max_tokens_field=self._max_tokens_field, usage=self._usage)
        async with self._slots:
            self._check_open()
            async with self._asked(request, body) as response:
                yield openai_limits(response.headers) or Limits()
                ending = Ending(top_logprobs=token_logprobs.wanted(request.parameters))
                async for event in events(response.iter_bytes()):
                    if event.data == b"[DONE]":
                        break
                    for item in self._read(event.data, ending):
                        yield item
                if ending.finish_reason is None:
                    raise BackendUnavailable("stream_cut", "the provider's stream ended before the answer did")
                yield ending.finished()

    async def count(self, request: InferenceRequest) -> None:
        """Only its provider can."""

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is None:
            return
        # Closing the client leaves those waiting who read from a stream that says nothing.
        for response in [*self._running]:
            await response.close()
        await http.aclose()

    @asynccontextmanager
    async def _asked(self, request: InferenceRequest, body: Any) -> AsyncIterator[Any]:
        openai = self._openai
        client = self._client(request.key or _NO_KEY)
        try:
            async with client.chat.completions.with_streaming_response.create(
                model=body["model"],
                messages=(),
                stream=True,
                # All of it beside: what stands in its own parameters the SDK walks through first, message by message.
                extra_body=body,
                extra_headers={"X-Client-Request-Id": f"{request.generation_id}.{request.attempt}"},
            ) as response:
                self._running.add(response)
                try:
                    yield response
                finally:
                    self._running.discard(response)
        except openai.APIStatusError as error:
            headers = error.response.headers
            logger.debug("the provider's answer: %s", error)
            window = _WINDOW.search(error.message)
            raise refusal(
                error.status_code,
                error.code or error.type,
                error.param,
                retry_after_s=retry_after(headers),
                limits=openai_limits(headers),
                tokens=int(window[1]) if window else None,
            ) from None
        except (openai.APIConnectionError, self._httpx.HTTPError, OSError, RuntimeError) as error:
            # RuntimeError is aiohttp's word for a connection that closed before it was read from.
            self._check_open()
            logger.debug("no answer: %r", error)
            where = self._base_url or "OpenAI"
            if never_connected(error):
                raise NotServed("provider_unreachable", f"{where} cannot be reached; is `base_url` right?") from None
            raise BackendUnavailable("provider_lost", f"{where} broke off ({type(error).__name__})") from None
        except EventTooLarge as error:
            raise BackendUnavailable("bad_stream", str(error)) from None

    def _read(self, data: bytes, ending: Ending) -> list[Item]:
        try:
            chunk = orjson.loads(data)
            if "error" in chunk:
                raise _failure(chunk["error"])
            return list(read_chunk(chunk, ending))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise BackendUnavailable(
                "bad_stream", f"the provider sent what is no chunk of an answer ({type(error).__name__})"
            ) from None

    def _make_client(self, key: str) -> Any:
        shared: dict[str, Any] = {"api_key": key, "http_client": self._http, "max_retries": 0}
        if self._azure_api_version is not None:
            return self._openai.AsyncAzureOpenAI(
                azure_endpoint=self._base_url or "", api_version=self._azure_api_version, **shared
            )
        return self._openai.AsyncOpenAI(base_url=self._base_url, **shared)

    def _check_open(self) -> None:
        if self._http is None:
            raise BackendUnavailable("engine_closed", "the provider's client is not open")


def _failure(error: Any) -> BackendError:
    """An error in mid-stream. It came after a 200, so whatever it says, another try may succeed."""
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return BackendUnavailable("provider_failed", f"the provider broke off its answer ({code or 'without a code'})")
