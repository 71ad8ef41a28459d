"""The worker's side of the token stream. Generation never waits for it and never hears of its troubles."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from uuid import UUID

from prometheus_client import Counter
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from backplane.adapters.redis import frames
from backplane.adapters.redis.connection import ANSWER_S, FAILED, Pauses, client, connect, hang_up
from backplane.ports.token_stream import Cursor, Frame, Kind, StreamUnavailable

logger = logging.getLogger(__name__)

_RUNNING_S = 24 * 3600
_ENDED_S = 15 * 60
_RENEW_EVERY = 256
_LOOK_BACK = 64
_GATHER_S = 0.008
"""After a round trip, frames are gathered for this long before the next one, but for those that somebody waits for."""

_dropped = Counter("parley_stream_frames_dropped_total", "Token frames that could not be written to Redis")

Group = dict[tuple[UUID, UUID], list[Frame]]


class RedisStreamWriter:
    """The ``StreamWriter`` port.

    Frames that are handed over while a round trip is under way go out together in the next one, runs of tokens of one
    generation joined to one frame. When a connection breaks, the group under way is sent once more, so a frame may
    stand twice; followers drop what they have seen.
    """

    def __init__(self, url: str, *, capacity: int = 20_000) -> None:
        """``capacity`` is the most frames that wait while Redis answers slowly; more are dropped."""
        self._url = url
        self._client = client(url)
        self._capacity = capacity
        self._waiting: Group = {}
        self._count = 0
        self._away = False
        self._rested_at = 0.0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        """Frames dropped since the start."""

    def append(self, tenant_id: UUID, generation_id: UUID, frame: Frame) -> None:
        if self._away or self._count >= self._capacity:
            self._drop(1)
            return
        waiting = self._waiting.get((tenant_id, generation_id))
        if waiting is None:
            self._waiting[tenant_id, generation_id] = [frame]
        else:
            waiting.append(frame)
        self._count += 1
        if frame.seq == len(frame.deltas) > 0 or (not frame.deltas and frame.kind.terminal):
            # Its first token, or its end: somebody waits for those.
            self._hurry.set()
        if self._count == 1:
            self._idle.clear()
            self._wake.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="token-stream-writer", context=Context())

    async def flush(self) -> None:
        await self._idle.wait()

    async def last(self, tenant_id: UUID, generation_id: UUID) -> Cursor | None:
        name = frames.stream_name(tenant_id, generation_id)
        newest = "+"
        try:
            while True:
                entries: list[tuple[bytes, dict[bytes, bytes]]] = await self._client.execute_command(  # type: ignore[no-untyped-call]
                    "XREVRANGE", name, newest, "-", "COUNT", _LOOK_BACK
                )
                for _, fields in entries:
                    frame = frames.decode(fields[frames.FIELD])
                    if frame.kind is Kind.TOKEN:
                        return Cursor(frame.attempt, frame.seq)
                if len(entries) < _LOOK_BACK:
                    return None
                newest = f"({entries[-1][0].decode()}"
        except (*FAILED, frames.UnreadableFrame) as error:
            raise StreamUnavailable(f"cannot read the token stream: {type(error).__name__}") from error

    async def close(self) -> None:
        """Write what was handed over, as far as Redis answers, and close."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.flush()
        except TimeoutError:
            logger.warning("closed with frames unwritten", extra={"action": "stream_closed_early"})
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def _run(self) -> None:
        pauses = Pauses()
        unsent: Group = {}
        while True:
            try:
                connection = await connect(self._url)
            except FAILED as error:
                self._leave(unsent, error)
                unsent = {}
                await pauses.wait()
                continue
            if self._away:
                self._away = False
                logger.warning("token stream is back", extra={"action": "stream_back", "dropped": self.dropped})
            try:
                unsent, broken = await self._write(connection, unsent, pauses)
            finally:
                await hang_up(connection)
            if not unsent:
                self._leave({}, broken)
                await pauses.wait()

    async def _write(self, connection: AbstractConnection, again: Group, pauses: Pauses) -> tuple[Group, Exception]:
        """Write groups until the connection breaks. Returns the group that was tried once only, and what broke it."""
        loop = asyncio.get_running_loop()
        while True:
            if again:
                group, first_try = again, False
            else:
                await self._wake.wait()
                # Many streams would else pay a round trip for each of their tokens; after a silence nobody waits.
                pause_s = self._rested_at - loop.time()
                if pause_s > 0 and not self._hurry.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._hurry.wait()
                group, first_try = self._take(), True
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._round_trip(connection, group)
            except Exception as error:
                if first_try:
                    return group, error
                self._drop(sum(map(len, group.values())))
                return {}, error
            again = {}
            self._rested_at = loop.time() + _GATHER_S
            pauses.reset()
            if not self._count:
                self._idle.set()

    async def _round_trip(self, connection: AbstractConnection, group: Group) -> None:
        packed, answers = self._packed(group)
        await connection.send_packed_command(packed, check_health=False)
        for _ in range(answers):
            try:
                await connection.read_response(timeout=math.inf)
            except ReadOnlyError:
                raise
            except ResponseError as error:
                self._drop(1)
                logger.error(
                    "Redis refused a frame", extra={"action": "stream_refused", "cause": str(error).partition(" ")[0]}
                )

    def _packed(self, group: Mapping[tuple[UUID, UUID], list[Frame]]) -> tuple[bytes, int]:
        """The commands of a group, as they go over the wire, and how many there are."""
        commands: list[bytes] = []
        answers = 0
        for (tenant_id, generation_id), waiting in group.items():
            name = frames.stream_name(tenant_id, generation_id)
            size = len(name)
            for frame in waiting if len(waiting) == 1 else frames.coalesced(waiting):
                try:
                    body = frames.encode(frame)
                except TypeError as error:
                    self._drop(1)
                    logger.error("frame is not JSON", extra={"action": "stream_refused", "cause": str(error)})
                    continue
                commands.append(
                    b"*5\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$1\r\nf\r\n$%d\r\n%b\r\n"
                    b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                    % (size, name, len(body), body, size, name, len(body), body)
                )
                answers += 2
                if (seconds := _expiry(frame)) is not None:
                    text = b"%d" % seconds
                    commands.append(b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (size, name, len(text), text))
                    answers += 1
        return b"".join(commands), answers

    def _take(self) -> Group:
        group, self._waiting, self._count = self._waiting, {}, 0
        self._wake.clear()
        self._hurry.clear()
        return group

    def _leave(self, unsent: Group, error: Exception) -> None:
        if not self._away:
            self._away = True
            logger.warning(
                "token stream is away, followers use Postgres",
                extra={"action": "stream_away", "cause": type(error).__name__},
            )
        self._drop(sum(map(len, unsent.values())) + self._count)
        self._take()
        self._idle.set()

    def _drop(self, count: int) -> None:
        self.dropped += count
        _dropped.inc(count)


def _expiry(frame: Frame) -> int | None:
    """Seconds for which the stream is to live on, where this frame is one that says so.

    A running stream is told again every so many tokens, so that one which Redis lost and which began anew, in the
    middle, does not stay for ever.
    """
    if frame.kind.terminal:
        return _ENDED_S
    first = frame.seq - len(frame.deltas)
    if frame.kind is Kind.STARTED or first == 0 or first // _RENEW_EVERY != frame.seq // _RENEW_EVERY:
        return _RUNNING_S
    return None
