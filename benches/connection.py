"""The least HTTP/1.1 client that there can be, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import httptools

from benches.answer import Broken

Sink = Callable[[bytes], None]


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.received = 0.0
        """When what a sink gets was there, in seconds of ``time.monotonic``."""
        self.retry_after_s: float | None = None
        """What the last answer says of when to try again."""
        self._transport: asyncio.WriteTransport | None = None
        self._parser: Any = None
        self._sink: Sink = _dropped
        self._done: asyncio.Future[int] | None = None
        self._lost: str | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Raises Broken."""
        try:
            _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        except OSError as error:
            raise Broken(f"no connection to {host}:{port}: {error.strerror or type(error).__name__}") from None
        return connection

    async def ask(self, request: bytes, sink: Sink) -> int:
        """Send ``request``; the pieces of the answer's body go to ``sink``. Returns the status once all is there.

        Raises Broken where the connection ends before.
        """
        if self._lost is not None or self._transport is None:
            raise Broken(f"the connection is gone: {self._lost}")
        assert self._done is None
        self._parser = httptools.HttpResponseParser(self)
        self._sink = sink
        self.retry_after_s = None
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._done
        finally:
            self._done = None

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is one, and does not say so

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(f"the server closed the connection ({type(exc).__name__})" if exc else "the server closed it")

    def data_received(self, data: bytes) -> None:
        self.received = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"not HTTP: {error}")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after_s = float(value)

    def on_body(self, piece: bytes) -> None:
        self._sink(piece)

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(self._parser.get_status_code())

    def _break(self, why: str) -> None:
        self._lost = why
        if self._done is not None and not self._done.done():
            self._done.set_exception(Broken(why))


def _dropped(piece: bytes) -> None:
    pass
