"""Claude by Anthropic's API, on Amazon Bedrock and on Vertex AI, through Anthropic's own SDK.

The SDK's three clients make the request, sign it and name what went wrong. They are asked by their ``post``, since
``messages.create`` has no sampling parameters any more and warns of models that are about to be retired. The stream is
read raw: the SDK's models of each event cost several times what reading the JSON does.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from typing import Any, Literal

import orjson

from workers.inference.anthropic_wire import Ending, bedrock_event, read_event, request_body
from workers.inference.event_stream import events
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    InferenceRequest,
    Item,
    KeyRefused,
    Limits,
    NotServed,
    Progress,
    RequestRefused,
)
from workers.inference.provider_answers import anthropic_limits, never_connected, refusal, retry_after

logger = logging.getLogger(__name__)

Platform = Literal["anthropic", "bedrock", "vertex"]

DEFAULT_KEY = "default"
"""The key that stands for the credentials of the machine, wherever the platform's SDK finds them."""

_NO_KEY = "none"
"""What a gateway that wants no key is sent, so that the SDK does not look for one elsewhere."""

_CONNECT_S = 10.0
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

# All that is asked for here came to this version in time: tools, images, thinking, efforts, structured output. The
# next one, 2026-10-21, which the SDK sends by itself, took the sampling parameters away, even at their default values,
# and Bedrock serves it only for the newest models (Anthropic API reference, "Versions").
_VERSION = "2023-06-01"
_VERSION_IN_BODY = {"bedrock": "bedrock-2023-05-31", "vertex": "vertex-2023-10-16"}

_TOO_LONG = re.compile(r"prompt is too long|input is too long|exceed context limit", re.IGNORECASE)
_WINDOW = re.compile(r"\d+ tokens > (\d+) maximum|\d+ \+ \d+ > (\d+)")
_EXHAUSTED = re.compile(r"credit balance is too low|reached your specified (?:\w+ )?API usage limits", re.IGNORECASE)
_SPENT = re.compile(r"billing_error|\w+_spend_limit_reached|ServiceQuotaExceededException")
_WHERE = re.compile(
    r"`?(max_tokens|messages|model|output_config|stop_sequences|system|temperature|thinking|tool_choice|tools|top_k"
    r"|top_p)\b"
)


class AnthropicBackend:
    """``base_url`` None is the platform's own. ``slots`` requests run at a time; the others wait their turn.

    Bedrock needs ``region``, Vertex AI also ``project``. What a request's key is:

    * ``anthropic``: an API key.
    * ``bedrock``: ``ACCESS_KEY_ID:SECRET_ACCESS_KEY``, or with ``:SESSION_TOKEN``; without a colon, a Bedrock API key.
    * ``vertex``: the JSON of a service account's key; what does not begin with a brace, an access token.
    * anywhere: ``default``, for what the platform's SDK finds by itself. Otherwise it does not look.
    """

    def __init__(
        self,
        base_url: str | None,
        *,
        slots: int,
        platform: Platform = "anthropic",
        region: str | None = None,
        project: str | None = None,
    ) -> None:
        """Raises ValueError: ``region`` or ``project`` is missing."""
        if platform != "anthropic" and not region:
            raise ValueError(f"{platform} needs a region")
        if platform == "vertex" and not project:
            raise ValueError("vertex needs a project")
        self._base_url = base_url
        self._platform = platform
        self._region = region
        self._project = project
        self._slots = asyncio.Semaphore(slots)
        self._slot_count = slots
        self._http: Any = None
        self._running: set[Any] = set()
        self._google: Any = None
        self._no_credentials: tuple[type[Exception], ...] = ()
        self._unreadable: tuple[type[Exception], ...] = (ValueError, TypeError, AttributeError, KeyError)

    async def start(self, progress: Progress) -> None:
        """Raises BackendUnavailable: ``engine_missing``."""
        try:
            import anthropic
            import httpx2

            self._import_platform()
        except ImportError as error:
            how = "make install" if self._platform == "anthropic" else f"pip install 'parley[{self._platform}]'"
            raise BackendUnavailable(
                "engine_missing", f"the anthropic SDK for {self._platform} can't be imported ({error}); run `{how}`"
            ) from error
        self._anthropic = anthropic
        self._httpx = httpx2
        self._no_credentials += (anthropic.AnthropicError, RuntimeError, TypeError, ValueError)
        self._client = lru_cache(maxsize=256)(self._make_client)
        self._http = anthropic.DefaultAioHttpClient(
            limits=httpx2.Limits(max_connections=self._slot_count, max_keepalive_connections=self._slot_count),
            # How long to wait for tokens is the attempt's affair.
            timeout=httpx2.Timeout(None, connect=_CONNECT_S),
        )
        progress("the provider's client is ready", 1.0)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        self._check_open()
        body = request_body(request, image_urls=self._platform == "anthropic")
        if self._platform != "anthropic":
            body["anthropic_version"] = _VERSION_IN_BODY[self._platform]
        async with self._slots:
            self._check_open()
            async with self._asked(request, body) as response:
                yield anthropic_limits(response.headers) or Limits()
                ending = Ending()
                async with aclosing(self._decoded(response.aiter_bytes())) as decoded:
                    async for event in decoded:
                        for item in self._read(event, ending):
                            yield item
                        if ending.closed:
                            break
                if ending.finish_reason is None:
                    raise BackendUnavailable("stream_cut", "the provider's stream ended before the answer did")
                yield ending.finished()

    async def count(self, request: InferenceRequest) -> None:
        """Only its provider can."""

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            # Whoever waits for bytes of a body would wait on: aiohttp's session does not wake them as it closes.
            for response in [*self._running]:
                await response.aclose()
            await http.aclose()

    def _import_platform(self) -> None:
        """What the SDK imports itself, though only at the first request."""
        if self._platform == "bedrock":
            import boto3  # noqa: F401
            import botocore.eventstream
            import botocore.exceptions

            self._aws_buffer = botocore.eventstream.EventStreamBuffer
            self._no_credentials += (botocore.exceptions.BotoCoreError,)
            self._unreadable += (botocore.eventstream.ParserError,)
        elif self._platform == "vertex":
            import google.auth.exceptions
            import google.auth.transport.requests
            import google.oauth2.service_account

            self._google = google
            self._no_credentials += (google.auth.exceptions.GoogleAuthError,)

    @asynccontextmanager
    async def _asked(self, request: InferenceRequest, body: dict[str, Any]) -> AsyncIterator[Any]:
        anthropic = self._anthropic
        try:
            response = await self._post(request, body)
            self._running.add(response)
            try:
                yield response
            finally:
                self._running.discard(response)
                await response.aclose()
        except anthropic.APIStatusError as error:
            logger.debug("the provider's answer: %s", error)
            raise _refused(error.status_code, error.body, error.response.headers) from None
        except (anthropic.APIConnectionError, self._httpx.HTTPError, OSError, RuntimeError) as error:
            # RuntimeError is aiohttp's word for a connection that closed before it was read from.
            self._check_open()
            logger.debug("no answer: %r", error)
            where = self._base_url or self._platform
            if never_connected(error):
                raise NotServed("provider_unreachable", f"{where} cannot be reached; is `base_url` right?") from None
            raise BackendUnavailable("provider_lost", f"{where} broke off ({type(error).__name__})") from None

    async def _post(self, request: InferenceRequest, body: dict[str, Any]) -> Any:
        """The response, its body unread. Raises the SDK's APIError besides what the port names."""
        headers = {"X-Client-Request-Id": f"{request.generation_id}.{request.attempt}"}
        if self._platform == "anthropic":
            headers["anthropic-version"] = _VERSION
        try:
            return await self._client(request.key or _NO_KEY).post(
                "/v1/messages",
                body=body,
                cast_to=self._httpx.Response,
                options={"headers": headers},
                stream=True,
                stream_cls=self._anthropic.AsyncStream,
            )
        except self._anthropic.APIError:
            raise
        except UnicodeEncodeError:
            raise RequestRefused(
                "invalid_request", "the prompt holds half a surrogate pair; send valid Unicode"
            ) from None
        except self._no_credentials as error:
            # What goes wrong on the connection is an APIError, so this went wrong before.
            away = self._platform == "vertex" and isinstance(error, self._google.auth.exceptions.TransportError)
            if away or getattr(error, "retryable", False):
                raise NotServed("provider_unreachable", "Google's token server gave no answer for the key") from None
            raise KeyRefused(
                "key_refused", f"no credentials for {self._platform} come of the key ({type(error).__name__})"
            ) from None

    async def _decoded(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
        try:
            if self._platform == "bedrock":
                buffer = self._aws_buffer()
                async for chunk in chunks:
                    buffer.add_data(chunk)
                    for message in buffer:
                        yield bedrock_event(message.headers, message.payload)
            else:
                async for event in events(chunks):
                    yield orjson.loads(event.data)
        except self._unreadable as error:
            raise _unreadable(error) from None

    def _read(self, event: dict[str, Any], ending: Ending) -> list[Item]:
        try:
            return list(read_event(event, ending))
        except self._unreadable as error:
            raise _unreadable(error) from None

    def _make_client(self, key: str) -> Any:
        sdk = self._anthropic
        given = None if key == DEFAULT_KEY else key
        shared: dict[str, Any] = {
            "base_url": self._base_url,
            "http_client": self._http,
            "max_retries": 0,
            # By itself it would make spans of prompts where the environment says so, and tell providers of our traces.
            "open_telemetry": False,
        }
        if self._platform == "anthropic":
            return sdk.AsyncAnthropic(api_key=given, **shared)
        if self._platform == "vertex":
            shared |= {"region": self._region, "project_id": self._project}
            if given is not None and given.startswith("{"):
                credentials = self._google.oauth2.service_account.Credentials.from_service_account_info(
                    orjson.loads(given), scopes=[_GOOGLE_SCOPE]
                )
                return sdk.AsyncAnthropicVertex(credentials=credentials, **shared)
            return sdk.AsyncAnthropicVertex(access_token=given, **shared)
        client = sdk.AsyncAnthropicBedrock(api_key=given, aws_region=self._region, **shared)
        if given is not None and ":" in given:
            # Set afterwards, since the SDK does not take them where the environment has a Bedrock API key.
            client.api_key = None
            client.aws_access_key, client.aws_secret_key, *token = given.split(":", 2)
            client.aws_session_token = token[0] if token else None
        return client

    def _check_open(self) -> None:
        if self._http is None:
            raise BackendUnavailable("engine_closed", "the provider's client is not open")


def _unreadable(error: Exception) -> BackendUnavailable:
    return BackendUnavailable("bad_stream", f"the provider sent what is no event of an answer ({type(error).__name__})")


def _refused(status: int, body: Any, headers: Mapping[str, str]) -> BackendError:
    """An error status. Shapes: Anthropic API reference, "Errors"; Amazon Bedrock API reference, "InvokeModel"; Google
    AIP-193. Nothing of the message is taken over but the size of the window, and which parameter it is about."""
    said = body[0] if isinstance(body, list) and body else body
    said = said if isinstance(said, dict) else {}
    error = said["error"] if isinstance(said.get("error"), dict) else said
    details = error.get("details")
    codes = [
        headers.get("x-amzn-errortype", "").partition(":")[0],
        details.get("error_code") if isinstance(details, dict) else None,
        error.get("status") or error.get("type"),
    ]
    code = next((code for code in codes if isinstance(code, str) and code.isidentifier()), None)
    message = str(error.get("message") or "")
    if (code is not None and _SPENT.fullmatch(code)) or (status in (400, 403) and _EXHAUSTED.search(message)):
        return KeyRefused("key_exhausted", f"the account of the key has nothing left (HTTP {status}, {code})")
    if status == 424:
        return NotServed("provider_failed", f"the model failed (HTTP {status}, {code})")
    if status == 400 and _TOO_LONG.search(message):
        code = "context_length_exceeded"
    window, where = _WINDOW.search(message), _WHERE.match(message)
    return refusal(
        status,
        code,
        where[1] if where else None,
        retry_after_s=retry_after(headers),
        limits=anthropic_limits(headers),
        tokens=int(window[1] or window[2]) if window else None,
    )
