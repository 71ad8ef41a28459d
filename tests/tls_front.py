"""TLS before a server that was built without it: real handshakes, and behind them the real server, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""How a client of Postgres asks whether the server speaks TLS (PostgreSQL's protocol, SSLRequest)."""


@contextlib.contextmanager
def tls_front(socket: Path, certificate: Path, key: Path, *, asked_first: bool) -> Iterator[int]:
    """Listen on the port that is given back, and pass on to ``socket`` what comes in over TLS, and nothing else.

    ``asked_first``: TLS begins with Postgres' question for it, else at once.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    front = _Front(socket, context, asked_first)
    loop = asyncio.new_event_loop()
    serving = threading.Thread(target=loop.run_forever)
    serving.start()
    try:
        yield asyncio.run_coroutine_threadsafe(front.listen(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(front.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        serving.join()
        loop.close()


class _Front:
    def __init__(self, socket: Path, context: ssl.SSLContext, asked_first: bool) -> None:
        self._socket = socket
        self._context = context
        self._asked_first = asked_first
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> int:
        # Not the server's own TLS: asyncio leaves a socket open whose handshake failed.
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        behind: asyncio.StreamWriter | None = None
        try:
            if self._asked_first:
                if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
                    return
                writer.write(b"S")
            await writer.start_tls(self._context)
            answers, behind = await asyncio.open_unix_connection(self._socket)
            both = {asyncio.create_task(_copy(reader, behind)), asyncio.create_task(_copy(answers, writer))}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except (OSError, EOFError, asyncio.CancelledError):
            return  # the client or the server is gone, or did not want this certificate
        finally:
            for end in (writer, behind):
                if end is not None:
                    end.transport.abort()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()
            self._connections.discard(connection)


async def _copy(source: asyncio.StreamReader, destination: asyncio.StreamWriter) -> None:
    while block := await source.read(65536):
        destination.write(block)
        await destination.drain()
