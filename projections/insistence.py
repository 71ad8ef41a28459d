"""Trying again until it is done. What cannot be applied is named, without its content, and never skipped."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from backplane.ports.bus import BusError, Message
from backplane.ports.database import DatabaseUnavailable
from backplane.telemetry.readiness import Readiness
from event_schemas.codec import NewerVersion, Poison, decode
from projections.backoff import Backoff
from projections.event_log import Received
from projections.positions import SetBack

logger = logging.getLogger(__name__)

BLOCK = "projections"
"""What keeps the projections from going on stands under this name in the process's readiness."""


class Stopped(Exception):
    """We were asked to stop while something was tried again and again. What it was is not acked and comes back."""


@dataclass(slots=True)
class Sorted:
    """What a slice of messages turned out to be."""

    received: list[Received] = field(default_factory=list)
    passed: list[Message] = field(default_factory=list)
    poison: list[tuple[Message, str]] = field(default_factory=list)
    newer: tuple[Message, NewerVersion] | None = None


class Insistence:
    """One a reader. Says in ``readiness`` what it waits for; who applies takes that back."""

    def __init__(self, readiness: Readiness, stop: asyncio.Event) -> None:
        self._readiness = readiness
        self._stop = stop

    async def until_done(
        self, messages: Sequence[Message], apply: Callable[[Sorted], Awaitable[object]]
    ) -> tuple[Message, NewerVersion] | None:
        """Have ``messages`` applied up to the first of a newer version, and return that one.

        Outages are waited out. Raises Stopped, SetBack.
        """
        backoff = Backoff(self._stop)
        while True:
            try:
                sorted_ = _sort(messages)
                await apply(sorted_)
            except (DatabaseUnavailable, BusError) as error:
                self._readiness.block(BLOCK, f"waiting: {error}")
                logger.warning("projections wait: %s", error, extra={"action": "projections_wait"})
            except SetBack:
                raise
            except Exception as error:
                if len(messages) > 1:
                    # One by one, what comes before the culprit gets through, and the culprit is named.
                    for message in messages:
                        newer = await self.until_done((message,), apply)
                        if newer is not None:
                            return newer
                    return None
                self._say_stuck(messages[0], error)
            else:
                return sorted_.newer
            if not await backoff.pause():
                raise Stopped

    def _say_stuck(self, message: Message, error: Exception) -> None:
        # An exception's text may hold what people wrote, so only its type and place are said.
        where = "; ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in _frames(error)[-4:])
        place = f"{message.topic}, partition {message.partition}, position {message.position}"
        self._readiness.block(BLOCK, f"stuck: {type(error).__name__} at {place}; see the log")
        logger.error(
            "cannot apply a message, trying again: %s at %s",
            type(error).__name__,
            place,
            extra={"action": "projection_stuck", "where": where} | place_of(message),
        )
        logger.debug("what it said", exc_info=error)


def place_of(message: Message) -> dict[str, object]:
    """As lines of the log name it."""
    return {"topic": message.topic, "partition": message.partition, "position": str(message.position)}


def _sort(messages: Sequence[Message]) -> Sorted:
    sorted_ = Sorted()
    for message in messages:
        try:
            sorted_.received.append(Received(decode(message.payload), message.payload))
        except Poison as error:
            sorted_.poison.append((message, str(error)))
        except NewerVersion as error:
            sorted_.newer = message, error
            break
        sorted_.passed.append(message)
    return sorted_


def _frames(error: Exception) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)
