"""Dropping the days that every subscription is past, and making those to come."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time, timedelta

import asyncpg

from backplane.adapters.postgres_bus.connections import Connections

logger = logging.getLogger(__name__)

_DROP = """
SELECT CASE WHEN pg_try_advisory_xact_lock(hashtext($3), $1) THEN bus.drop_day($1, $2) ELSE false END AS dropped
"""
_ONE_AT_A_TIME = "parley bus maintenance"


class Retention:
    def __init__(self, connections: Connections, keep: timedelta) -> None:
        self._connections = connections
        self._keep = keep

    async def maintain(self, now: datetime) -> int:
        """Returns how many tables were dropped. What is in use by a long transaction is left for the next time."""
        today = now.astimezone(UTC).date()
        for row in await self._connections.fetch("SELECT topic_id FROM bus.topics"):
            for day in (today, today + timedelta(days=1)):
                await self._connections.fetch("SELECT bus.make_day($1, $2)", row["topic_id"], day)
        dropped = 0
        for row in await self._connections.fetch("SELECT topic_id, day FROM bus.days() ORDER BY day, topic_id"):
            ended = datetime.combine(row["day"] + timedelta(days=1), time(), UTC)
            if ended <= now - self._keep and await self._drop(row["topic_id"], row["day"]):
                dropped += 1
        if dropped:
            logger.info(
                "dropped %d tables of messages that everybody has read", dropped, extra={"action": "bus_retention"}
            )
        return dropped

    async def _drop(self, topic_id: int, day: date) -> bool:
        async with self._connections.connection() as connection:
            try:
                row = await connection.fetchrow(
                    _DROP,
                    topic_id,
                    day,
                    _ONE_AT_A_TIME,
                )
            except asyncpg.LockNotAvailableError:
                logger.info(
                    "topic %d is in use by a long transaction; its old messages stay",
                    topic_id,
                    extra={"action": "bus_retention"},
                )
                return False
        return bool(row and row["dropped"])
