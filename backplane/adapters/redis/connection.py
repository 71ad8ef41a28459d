"""Connections to Redis as the token path needs them: quick to give up on a server that does not answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from backplane.ports.token_stream import StreamUnavailable
from backplane.security.handshake import handshake_failure

ANSWER_S = 2.0
"""Seconds without an answer after which a server counts as unreachable."""

FAILED = (RedisError, OSError, TimeoutError, RuntimeError)
"""Whatever can go wrong with a command. RuntimeError is uvloop's word for a connection that closed before it was
written to; the client lets it through."""

_IN_LINE_S = 5 * ANSWER_S
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


def client(url: str, *, most_connections: int | None = None) -> redis.asyncio.Redis:
    """A client with a pool, for commands that somebody waits for. A connection that went stale is tried again once.

    Who finds ``most_connections`` busy waits for one: a crowd is no reason to refuse anybody.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": ANSWER_S,
        "retry": Retry(NoBackoff(), 1),
    }
    if most_connections is None:
        return redis.asyncio.Redis.from_url(url, **options)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=most_connections, timeout=_IN_LINE_S, **options
    )
    return redis.asyncio.Redis.from_pool(pool)


async def ping(url: str) -> None:
    """Raises StreamUnavailable where no server answers at ``url``."""
    asking = client(url)
    try:
        await asking.execute_command("PING")  # type: ignore[no-untyped-call]
    except FAILED as error:
        raise StreamUnavailable(f"Redis does not answer: {_why(error)}") from error
    finally:
        await asking.aclose()


def _why(error: BaseException) -> str:
    failure = handshake_failure(error)
    if failure is None:
        return type(error).__name__
    return f"{failure}; check ssl_ca_certs in redis.url, and that the URL names the host as the certificate does"


async def connect(url: str) -> AbstractConnection:
    """One connection, outside any pool, that reads without a time limit. Raises one of ``FAILED``."""
    connection: AbstractConnection = redis.asyncio.ConnectionPool.from_url(
        url, protocol=2, socket_timeout=None, socket_connect_timeout=ANSWER_S
    ).make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(ANSWER_S):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await hang_up(connection)
        raise
    return connection


async def hang_up(connection: AbstractConnection) -> None:
    """Close without waiting and without raising."""
    try:
        await connection.disconnect(nowait=True)
    except FAILED:
        return


class Pauses:
    """Seconds to wait between attempts to connect: doubling, with jitter, up to a second."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE_S

    def reset(self) -> None:
        self._next = _FIRST_PAUSE_S

    async def wait(self) -> None:
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
