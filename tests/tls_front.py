"""TLS before a server that was built without it: real handshakes, and behind them the real server, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""How a client of Postgres asks whether the server speaks TLS (PostgreSQL's protocol, SSLRequest)."""


@contextlib.contextmanager
def tls_front(behind: Path, certificate: Path, key: Path, *, asked_first: bool) -> Iterator[int]:
    """Listen on the port that is given back, and pass on to ``behind`` what comes in over TLS, and nothing else.

    ``asked_first``: TLS begins with Postgres' question for it, else at once.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    front = _Front(behind, context, asked_first)
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
    def __init__(self, behind: Path, context: ssl.SSLContext, asked_first: bool) -> None:
        self._behind = behind
        self._context = context
        self._asked_first = asked_first
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> int:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self._begin(self._accept())
        port: int = self._listening.getsockname()[1]
        return port

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening.close()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(self._listening)
            self._begin(self._pass_on(accepted))

    async def _pass_on(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        # Whatever asyncio makes of a handshake that fails, the socket is closed.
        with accepted, contextlib.suppress(OSError, EOFError):
            if self._asked_first:
                if await loop.sock_recv(accepted, len(_SSL_REQUEST)) != _SSL_REQUEST:
                    return
                await loop.sock_sendall(accepted, b"S")
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._context)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            answers, behind = await asyncio.open_unix_connection(self._behind)
            both = {loop.create_task(_copy(reader, behind)), loop.create_task(_copy(answers, writer))}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
                for end in (writer, behind):
                    end.transport.abort()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()


async def _copy(source: asyncio.StreamReader, destination: asyncio.StreamWriter) -> None:
    while block := await source.read(65536):
        destination.write(block)
        await destination.drain()
