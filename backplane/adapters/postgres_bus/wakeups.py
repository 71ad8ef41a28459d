"""LISTEN: one connection a process that says when there may be something to do. Polling is the safety net."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

import asyncpg

from backplane.adapters.postgres_bus.connections import Connections, bus_errors
from backplane.adapters.postgres_bus.tasks import stop
from backplane.ports.bus import BusError

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 2.0

Heard = Callable[[str | None], None]
"""Called with a notification's text, or with None when some may have been missed."""


def topic_channel(topic_id: int) -> str:
    """Hears the partitions that were published to, with commas between."""
    return f"bus_topic_{topic_id}"


def subscription_channel(subscription_id: int) -> str:
    """Hears that consumers came or went, or that messages came back."""
    return f"bus_subscription_{subscription_id}"


class Wakeups:
    """Listens for as long as anybody wants to hear something, through reconnects."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._listeners: defaultdict[str, list[Heard]] = defaultdict(list)
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def listen(self, channels: Mapping[str, Heard]) -> None:
        """Call back for what comes on the channels; at once where the server answers, else when it is back."""
        async with self._changing:
            for channel, heard in channels.items():
                is_new = not self._listeners[channel]
                self._listeners[channel].append(heard)
                if is_new and self._connection is not None:
                    # Where the connection is lost, the next one listens to this too.
                    with contextlib.suppress(BusError):
                        await self._start(self._connection, channel)
        if self._task is None:
            connected = asyncio.Event()
            self._task = asyncio.create_task(self._run(connected), context=Context())
            await connected.wait()

    async def unlisten(self, channels: Mapping[str, Heard]) -> None:
        async with self._changing:
            for channel, heard in channels.items():
                self._listeners[channel].remove(heard)
                if not self._listeners[channel]:
                    del self._listeners[channel]
                    if self._connection is not None:
                        with contextlib.suppress(BusError), bus_errors():
                            async with asyncio.timeout(self._connections.timeout_s):
                                await self._connection.remove_listener(channel, self._dispatch)

    async def close(self) -> None:
        if self._task is not None:
            await stop(self._task)

    async def _run(self, first_try: asyncio.Event) -> None:
        pause_s = 0.05
        while True:
            lost = asyncio.Event()
            connection: asyncpg.Connection[asyncpg.Record] | None = None
            try:
                connection = await self._connections.dedicated()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                async with self._changing:
                    for channel in list(self._listeners):
                        await self._start(connection, channel)
                    self._connection = connection
            except BusError as error:
                if connection is not None:
                    connection.terminate()
                logger.debug("cannot listen yet: %s", error, extra={"action": "bus_listen_failed"})
                first_try.set()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            pause_s = 0.05
            first_try.set()
            try:
                for heard in [heard for listeners in self._listeners.values() for heard in listeners]:
                    heard(None)
                await lost.wait()
                logger.warning(
                    "lost the connection that listens; polling until it is back", extra={"action": "bus_listen_lost"}
                )
            finally:
                self._connection = None
                connection.terminate()

    async def _start(self, connection: asyncpg.Connection[asyncpg.Record], channel: str) -> None:
        with bus_errors():
            async with asyncio.timeout(self._connections.timeout_s):
                await connection.add_listener(channel, self._dispatch)

    def _dispatch(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        for heard in self._listeners.get(channel, ()):
            heard(str(payload))
