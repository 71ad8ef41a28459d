"""One pub/sub connection a process, shared by all who listen."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from contextvars import Context

from redis.asyncio.connection import AbstractConnection

from backplane.adapters.redis.connection import ANSWER_S, FAILED, Pauses, connect, hang_up
from backplane.ports.token_stream import StreamUnavailable

logger = logging.getLogger(__name__)

_KEEPALIVE_S = 5.0


class Listener:
    """One who listens to a channel, and the bounded buffer of what it has not taken yet."""

    def __init__(self, channel: bytes, *, capacity: int, patient: bool) -> None:
        """A ``patient`` listener stays through outages; another is told that it lost the connection."""
        self.channel = channel
        self.patient = patient
        self._capacity = capacity
        self._buffer: deque[bytes] = deque()
        self._missed = False
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.confirmed: asyncio.Future[None] = self._loop.create_future()

    async def next(self) -> bytes | None:
        """The next message; None where some were dropped. Cancelling loses nothing. Raises StreamUnavailable."""
        while True:
            if self._missed:
                self._missed = False
                return None
            if self._buffer:
                return self._buffer.popleft()
            if self._lost:
                raise StreamUnavailable("the connection to Redis was lost")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def at_hand(self) -> bytes | None:
        """The next message if it is here already and nothing was dropped before it."""
        return self._buffer.popleft() if self._buffer and not self._missed else None

    def put(self, message: bytes) -> None:
        if len(self._buffer) >= self._capacity:
            # What is left of a buffer with a hole is of no use: its owner has to read the backlog anyway.
            self._buffer.clear()
            self._missed = True
        self._buffer.append(message)
        self._wake()

    def confirm(self) -> None:
        if not self.confirmed.done():
            self.confirmed.set_result(None)

    def lose(self) -> None:
        self._lost = True
        if not self.confirmed.done():
            self.confirmed.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub:
    """Subscribes to a channel with its first listener and unsubscribes with its last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners: dict[bytes, set[Listener]] = {}
        self._subscribed: set[bytes] = set()
        self._unconfirmed: dict[bytes, int] = {}
        self._changed = asyncio.Event()
        self._heard = True
        self._away = False
        self._task: asyncio.Task[None] | None = None

    async def enter(self, listener: Listener) -> None:
        """Return once Redis has confirmed the subscription. A patient listener is in, whether Redis answers or not.

        Raises StreamUnavailable (not for patient ones), and the listener is then out again.
        """
        if self._away and not listener.patient:
            raise StreamUnavailable("Redis does not answer")
        self._listeners.setdefault(listener.channel, set()).add(listener)
        if listener.channel in self._subscribed and listener.channel not in self._unconfirmed:
            return
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="redis-hub", context=Context())
        try:
            if not (self._away and listener.patient):
                await asyncio.wait({listener.confirmed}, timeout=ANSWER_S)
        except BaseException:
            self.leave(listener)
            raise
        if not listener.patient and (not listener.confirmed.done() or listener.confirmed.cancelled()):
            self.leave(listener)
            raise StreamUnavailable("Redis does not answer")

    def leave(self, listener: Listener) -> None:
        """Idempotent."""
        others = self._listeners.get(listener.channel)
        if others is None:
            return
        others.discard(listener)
        if not others:
            # The server is told with the next subscription, or ping: who left to enter again is still subscribed.
            del self._listeners[listener.channel]

    async def close(self) -> None:
        """Tell every listener that the connection is lost, and close it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for listener in [one for some in self._listeners.values() for one in some]:
            listener.lose()
        self._listeners.clear()

    async def _run(self) -> None:
        pauses = Pauses()
        while True:
            try:
                connection = await connect(self._url)
            except FAILED as error:
                if not self._away:
                    logger.warning("Redis is away", extra={"action": "hub_away", "cause": type(error).__name__})
                self._away = True
                self._disconnected()
                await pauses.wait()
                continue
            self._away = False
            self._subscribed.clear()
            self._unconfirmed.clear()
            self._heard = True
            self._changed.set()
            sending = asyncio.create_task(self._send(connection))
            reading = asyncio.create_task(self._read(connection, pauses))
            try:
                await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                reading.cancel()
                ends = await asyncio.gather(sending, reading, return_exceptions=True)
                await hang_up(connection)
            causes = [type(end).__name__ for end in ends if isinstance(end, Exception)] or ["silence"]
            logger.warning("lost the connection to Redis", extra={"action": "hub_lost", "cause": causes[0]})
            self._disconnected()
            await pauses.wait()

    async def _send(self, connection: AbstractConnection) -> None:
        """Keep the server's subscriptions equal to what is listened to. Ends when the server falls silent."""
        while True:
            try:
                async with asyncio.timeout(_KEEPALIVE_S):
                    await self._changed.wait()
            except TimeoutError:
                if not self._heard:
                    return
                self._heard = False
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
            self._changed.clear()
            wanted = self._listeners.keys()
            fresh, stale = wanted - self._subscribed, self._subscribed - wanted
            commands: list[bytes] = []
            if stale:
                commands += connection.pack_command("UNSUBSCRIBE", *stale)
            if fresh:
                commands += connection.pack_command("SUBSCRIBE", *fresh)
            for channel in fresh:
                self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
            self._subscribed = set(wanted)
            if commands:
                await connection.send_packed_command(commands, check_health=False)

    async def _read(self, connection: AbstractConnection, pauses: Pauses) -> None:
        """Hand out what arrives. Raises when the connection is lost."""
        while True:
            kind, channel, *rest = await connection.read_response(timeout=math.inf)
            self._heard = True
            if kind == b"message":
                for listener in self._listeners.get(channel, ()):
                    listener.put(rest[0])
            elif kind == b"subscribe":
                pauses.reset()
                self._confirmed(channel)

    def _confirmed(self, channel: bytes) -> None:
        # A channel that was left and entered again has two confirmations under way; only the last one counts.
        left = self._unconfirmed.get(channel, 1) - 1
        if left:
            self._unconfirmed[channel] = left
            return
        self._unconfirmed.pop(channel, None)
        for listener in self._listeners.get(channel, ()):
            listener.confirm()

    def _disconnected(self) -> None:
        self._subscribed.clear()
        self._unconfirmed.clear()
        for channel in list(self._listeners):
            patient = {listener for listener in self._listeners[channel] if listener.patient}
            for listener in self._listeners[channel] - patient:
                listener.lose()
            if patient:
                self._listeners[channel] = patient
            else:
                del self._listeners[channel]
