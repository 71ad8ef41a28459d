"""One prompt to a running Parley, and its answer as it is written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backplane.settings import Settings
from cli import data_folder
from cli.answer import good, unreachable
from cli.event_stream import ServerSentEvent, events, lines_of
from cli.failures import CommandError, TryAgain

_CONNECT_S = 5.0
_SILENCE_S = 60.0
_GIVE_UP_S = 60.0
_RETRY_S = 0.5
_CANCEL_S = 5.0

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where the next prompt goes on."""

    conversation_id: str
    parent_message_id: str


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    model: str | None = None
    system: str | None = None
    conversation: Conversation | None = None

    def body(self) -> dict[str, Any]:
        """The body of ``POST /v1/prompts``."""
        fields: dict[str, Any] = {"input": self.text, "model": self.model, "system": self.system}
        if self.conversation is not None:
            fields |= {
                "conversation_id": self.conversation.conversation_id,
                "parent_message_id": self.conversation.parent_message_id,
            }
        return {name: value for name, value in fields.items() if value is not None}


def api_key(settings: Settings, given: str | None) -> str:
    """``given``, else PARLEY_API_KEY, else the first admin key. Raises CommandError where there is none."""
    key = given or os.environ.get("PARLEY_API_KEY")
    if key:
        return key.strip()
    file = data_folder.admin_key_file(settings.data_dir)
    try:
        return file.read_text().strip()
    except OSError as error:
        raise CommandError(
            f"no API key: {file} cannot be read ({error.strerror}); give --key, set PARLEY_API_KEY, or start "
            "`parley up` once"
        ) from None


def last_conversation(settings: Settings) -> Conversation:
    """What the last `parley chat` spoke in. Raises CommandError where there was none."""
    try:
        return Conversation(**json.loads(_memory(settings).read_text()))
    except (OSError, ValueError, TypeError):
        raise CommandError("there is no conversation to continue yet; leave -c away") from None


def remember(settings: Settings, conversation: Conversation) -> None:
    """Let the next `parley chat -c` go on here. Ids only; no text is kept."""
    file = _memory(settings)
    with contextlib.suppress(OSError):  # another account's data folder: the answer was given all the same
        file.write_text(
            json.dumps(
                {
                    "conversation_id": conversation.conversation_id,
                    "parent_message_id": conversation.parent_message_id,
                }
            )
        )


def _memory(settings: Settings) -> Path:
    return settings.data_dir / "last-chat.json"


class ChatClient:
    """A client of one Parley. ``show`` gets the answer piece by piece, ``notice`` what is to be said beside it."""

    def __init__(self, url: str, key: str, show: Show, notice: Show) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(_CONNECT_S, read=_SILENCE_S),
        )
        self._url = url
        self._show = show
        self._notice = notice

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, prompt: Prompt, stop: asyncio.Event) -> tuple[str, Conversation]:
        """Send ``prompt`` and show its answer; return its text and where to go on.

        ``stop`` cancels the generation. Raises CommandError where it is refused or fails, TryAgain where the server
        does not answer.
        """
        accepted = await self._submit(prompt)
        going_on = Conversation(accepted["conversation_id"], accepted["message_id"])
        following = asyncio.create_task(self._follow(accepted["stream_url"]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                await self._cancel(accepted["cancel_url"])
                await asyncio.wait({following}, timeout=_CANCEL_S)
            if not following.done():
                raise TryAgain("the generation was asked to stop, and its end was not seen")
            return following.result(), going_on
        finally:
            for task in (following, stopping):
                task.cancel()

    async def _submit(self, prompt: Prompt) -> dict[str, Any]:
        # One key for all tries: however often it is sent, it is one prompt.
        headers = {"Idempotency-Key": f"parley-chat-{uuid.uuid4()}"}
        deadline = time.monotonic() + _CONNECT_S
        while True:
            try:
                response = await self._http.post("/v1/prompts", json=prompt.body(), headers=headers)
            except httpx.TransportError as error:
                if time.monotonic() > deadline or isinstance(error, httpx.UnsupportedProtocol):
                    raise unreachable(self._url, error) from None
            else:
                if response.status_code != 503 or time.monotonic() > deadline:
                    return good(self._url, response)
            await asyncio.sleep(_RETRY_S)

    async def _cancel(self, url: str) -> None:
        try:
            good(self._url, await self._http.post(url))
        except httpx.TransportError as error:
            raise unreachable(self._url, error) from None

    async def _follow(self, url: str) -> str:
        """Show the answer until its terminal frame, through cut connections; return it."""
        answer: list[str] = []
        cursor: str | None = None
        deadline = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                async for frame in self._frames(url, cursor):
                    deadline = time.monotonic() + _GIVE_UP_S
                    if self._take(frame, answer):
                        return "".join(answer)
                    cursor = frame.id or cursor
            except (httpx.TransportError, TryAgain) as error:
                if time.monotonic() > deadline:
                    raise unreachable(self._url, error) from None
            await asyncio.sleep(_RETRY_S)

    async def _frames(self, url: str, cursor: str | None) -> AsyncIterator[ServerSentEvent]:
        headers = {} if cursor is None else {"Last-Event-ID": cursor}
        async with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                good(self._url, response)
            async for frame in events(lines_of(response.aiter_text())):
                yield frame

    def _take(self, frame: ServerSentEvent, answer: list[str]) -> bool:
        """Whether this was the end. Raises CommandError where the generation failed."""
        match frame.event:
            case "token":
                text = json.loads(frame.data)["text"]
                answer.append(text)
                self._show(text)
            case "restarted":
                if answer:
                    self._notice("the worker was lost; the answer begins anew")
                answer.clear()
            case "completed":
                return True
            case "cancelled":
                self._notice("cancelled")
                return True
            case "failed":
                told = json.loads(frame.data)
                reason = told.get("reason", "unknown")
                raise CommandError(f"the generation failed ({reason}): {told.get('detail', '')}".rstrip(": "))
        return False
