"""Wake-ups between processes over Redis pub/sub."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from backplane.adapters.redis.connection import FAILED, client
from backplane.adapters.redis.hub import Hub, Listener

logger = logging.getLogger(__name__)

_PREFIX = "signals:"
_BUFFERED = 1024


class RedisSignals:
    """The ``Signals`` port. Channels are named as the caller names them, apart from everything else in Redis."""

    def __init__(self, url: str, hub: Hub) -> None:
        self._client = client(url)
        self._hub = hub

    async def send(self, channel: str, message: str) -> None:
        try:
            await self._client.publish(_PREFIX + channel, message)
        except FAILED as error:
            logger.info("signal not sent", extra={"action": "signal_lost", "cause": type(error).__name__})

    def listen(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        return self._listen((_PREFIX + channel).encode())

    @asynccontextmanager
    async def _listen(self, name: bytes) -> AsyncIterator[AsyncIterator[str]]:
        listener = Listener(name, capacity=_BUFFERED, patient=True)
        await self._hub.enter(listener)
        try:
            yield _Messages(listener)
        finally:
            self._hub.leave(listener)

    async def close(self) -> None:
        """Close the sender's own connections; the hub is closed by whoever made it."""
        await self._client.aclose()


class _Messages:
    """Messages as they arrive. A pending ``anext`` may be cancelled and loses nothing."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> str:
        while True:
            message = await self._listener.next()
            if message is not None:
                return message.decode()
