"""A receiver of webhooks as somebody else's server would be one, with its faults, and its own check of signatures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal["hangs", "drips", "huge body", "huge head", "closes", "half an answer", "nonsense", "slow", "waits"]
Answer = int | Fault | str
"""A status, a fault, or the rest of a response's head, beginning with its status."""


@dataclass
class Delivery:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    def is_signed_with(self, secret: str) -> bool:
        """By https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md."""
        timestamp = self.headers["webhook-timestamp"]
        if not secret.startswith("whsec_") or abs(time.time() - int(timestamp)) > 300:
            return False
        mac = hmac.new(base64.b64decode(secret[6:], validate=True), digestmod=hashlib.sha256)
        mac.update(b".".join([self.id.encode(), timestamp.encode(), self.body]))
        version, _, signature = self.headers["webhook-signature"].partition(",")
        return version == "v1" and base64.b64decode(signature, validate=True) == mac.digest()


@dataclass
class Receiver:
    url: str
    deliveries: list[Delivery] = field(default_factory=list)
    answers: deque[Answer] = field(default_factory=deque)
    """For the next requests; then each gets ``otherwise``."""
    otherwise: Answer = 204
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """What those wait for whose answer `waits`."""
    running: int = 0
    most_at_once: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.deliveries]

    async def until(self, condition: Callable[[], bool], within: float = 20) -> None:
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(condition)

    async def has(self, number: int) -> list[Delivery]:
        """The deliveries, once there are so many."""
        await self.until(lambda: len(self.deliveries) >= number)
        return self.deliveries

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            async with self._changed:
                self.deliveries.append(Delivery(head[0].split()[1], headers, body))
                self._changed.notify_all()
            answer = self.answers.popleft() if self.answers else self.otherwise
            if answer == "waits":
                await self.go_on.wait()
            await _answer(writer, reader, 204 if answer == "waits" else answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.running -= 1
            async with self._changed:
                self._changed.notify_all()


async def _answer(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, answer: Answer) -> None:
    match answer:
        case int():
            writer.write(f"HTTP/1.1 {answer} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
        case "hangs":
            await reader.read()
        case "drips":
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        case "slow":
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        case "huge body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
            while True:
                writer.write(b"a" * 65536)
                await writer.drain()
        case "huge head":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-More: " + b"a" * 8192 + b"\r\n")
                await writer.drain()
        case "closes":
            return
        case "half an answer":
            writer.write(b"HTTP/1.1 20")
        case "nonsense":
            writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        case _:
            writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()


@asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """One that listens on a free port of this machine while the context lasts."""
    made = Receiver("")
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taking = asyncio.create_task(made.take(reader, writer))
        connections.add(taking)
        taking.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    try:
        yield made
    finally:
        server.close()
        for taking in connections:
            taking.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
