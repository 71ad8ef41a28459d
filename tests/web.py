"""A server of the web as strangers run them: it answers what it is told to, as bytes, and remembers who asked what."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Writes = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    path: str
    headers: dict[str, str]


@dataclass
class Web:
    """``has`` maps paths to whole answers, or to what writes one; of what it has not, it says 404."""

    port: int
    has: dict[str, bytes | Writes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            path = head[0].split()[1]
            self.asked.append(Asked(path, headers))
            answer = self.has.get(path, response(404))
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def response(
    status: int = 200, body: bytes | str = b"", type: str = "text/html; charset=utf-8", **headers: str
) -> bytes:
    """A whole answer; underscores in names of ``headers`` are dashes."""
    raw = body.encode() if isinstance(body, str) else body
    fields = {"content-type": type, "content-length": str(len(raw)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + raw


def packed(body: bytes, **headers: str) -> bytes:
    return response(200, gzip.compress(body), content_encoding="gzip", **headers)


def page(title: str, *paragraphs: str) -> str:
    said = "".join(f"<p>{one}</p>" for one in paragraphs)
    return f"<html><head><title>{title}</title></head><body><nav>Home</nav><article>{said}</article></body></html>"


@asynccontextmanager
async def web(tls: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    """One that listens on a free port of this machine while the context lasts."""
    made = Web(0)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taking = asyncio.create_task(made.take(reader, writer))
        connections.add(taking)
        taking.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for taking in connections:
            taking.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
