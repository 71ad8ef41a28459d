"""Server-Sent Events as responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sse_starlette import ServerSentEvent
from starlette.types import Message

from backplane.web.event_stream import COMMENT, SEPARATOR, EventStream


@pytest.mark.parametrize(
    ("ping", "said"),
    [
        (COMMENT, b": ping\n\n"),
        (ServerSentEvent(event="ping", data="{}", sep=SEPARATOR), b"event: ping\ndata: {}\n\n"),
    ],
    ids=["comment", "event"],
)
async def test_a_silent_stream_shows_that_it_lives(ping: ServerSentEvent, said: bytes) -> None:
    pinged = asyncio.Event()
    sent: list[bytes] = []

    async def events() -> AsyncIterator[bytes]:
        await pinged.wait()
        yield b"data: end\n\n"

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if said in sent:
            pinged.set()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(30):
        await EventStream(events(), 0.01, ping=ping)({"type": "http", "method": "GET"}, receive, send)
    assert sent[-2:] == [b"data: end\n\n", b""]
