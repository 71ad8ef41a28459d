"""From the bus to the batch and back to the ack. Nothing is ever skipped: what cannot be applied is tried again."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backplane.ports.bus import BusError, Consumer, Message, Position, Publisher
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.dead_letters import dead_letter
from backplane.telemetry.readiness import Readiness
from event_schemas.codec import NewerVersion, Poison, decode
from event_schemas.topics import EVENTS
from projections.backoff import Backoff
from projections.batch import Batch
from projections.event_log import MOST_BYTES, Received

logger = logging.getLogger(__name__)

BLOCK = "projections"
"""What keeps the projections from going on stands under this name in the process's readiness."""

MOST_MESSAGES = 500
"""Messages of one transaction at most."""

GATHER_S = 0.05
"""From the beginning of one batch to that of the next at least: a transaction for each event would cost more than the
events. What comes after a silence is not held up."""


_Place = tuple[str, int, Position]


class SetBack(Exception):
    """Postgres has not what was acknowledged before the messages at hand: first that is to be read again."""


class Watch(Protocol):
    """See ``projections.continuity``."""

    async def require(self, messages: Sequence[Message]) -> None:
        """Raises SetBack where something before ``messages`` is missing, DatabaseUnavailable, BusError."""

    def passed(self, messages: Sequence[Message]) -> None:
        """``messages`` are committed."""


class Stopped(Exception):
    """We were asked to stop while something was tried again and again. What it was is not acked and comes back."""


@dataclass(slots=True)
class _Sorted:
    """What a slice of messages turned out to be."""

    received: list[Received] = field(default_factory=list)
    passed: list[Message] = field(default_factory=list)
    poison: list[tuple[Message, str]] = field(default_factory=list)
    newer: tuple[Message, NewerVersion] | None = None


class Runner:
    """Reads one consumer until it is asked to stop, or meets what only a newer release can read."""

    def __init__(
        self,
        consumer: Consumer,
        publisher: Publisher,
        batch: Batch,
        watch: Watch,
        readiness: Readiness,
        stop: asyncio.Event,
    ) -> None:
        self._consumer = consumer
        self._publisher = publisher
        self._batch = batch
        self._watch = watch
        self._readiness = readiness
        self._stop = stop

    async def run(self) -> None:
        """Return when asked to stop, or when a newer version was met; the consumer is then to be closed.

        Raises BusError where the consumer cannot go on, and SetBack.
        """
        loop = asyncio.get_running_loop()
        stopping = asyncio.ensure_future(self._stop.wait())
        receiving: asyncio.Future[Sequence[Message]] | None = None
        try:
            while not self._stop.is_set():
                receiving = asyncio.ensure_future(self._consumer.receive(MOST_MESSAGES))
                await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    return
                rested = loop.time() + GATHER_S
                if not await self.handle(receiving.result()):
                    return
                if (pause_s := rested - loop.time()) > 0:
                    await asyncio.wait((stopping,), timeout=pause_s)
        except Stopped:
            return
        finally:
            for pending in (stopping, receiving):
                if pending is not None and not pending.done():
                    pending.cancel()
                    await asyncio.gather(pending, return_exceptions=True)

    async def handle(self, messages: Sequence[Message]) -> bool:
        """Apply, set aside and ack ``messages``; False where one of them is of a newer version.

        What comes before that one is applied and acked, the rest is left to a newer release.
        Raises Stopped, SetBack.
        """
        aside: set[_Place] = set()
        for slice_ in slices(messages):
            newer = await self._until_done(slice_, aside)
            if newer is not None:
                message, error = newer
                self._readiness.block(BLOCK, str(error))
                logger.error(
                    "stopped reading: %s",
                    error,
                    extra={"action": "newer_version_met", "wire_name": error.wire_name} | _place(message),
                )
                return False
        return True

    async def _until_done(self, messages: Sequence[Message], aside: set[_Place]) -> tuple[Message, NewerVersion] | None:
        backoff = Backoff(self._stop)
        while True:
            try:
                sorted_ = self._sort(messages)
                await self._apply(sorted_, aside)
            except (DatabaseUnavailable, BusError) as error:
                self._readiness.block(BLOCK, f"waiting: {error}")
                logger.warning("projections wait: %s", error, extra={"action": "projections_wait"})
            except SetBack:
                raise
            except Exception as error:
                if len(messages) > 1:
                    # One by one, what comes before the culprit gets through, and the culprit is named.
                    for message in messages:
                        newer = await self._until_done((message,), aside)
                        if newer is not None:
                            return newer
                    return None
                self._say_stuck(messages[0], error)
            else:
                self._readiness.unblock(BLOCK)
                return sorted_.newer
            if not await backoff.pause():
                raise Stopped

    def _sort(self, messages: Sequence[Message]) -> _Sorted:
        sorted_ = _Sorted()
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

    async def _apply(self, sorted_: _Sorted, aside: set[_Place]) -> None:
        for message, reason in sorted_.poison:
            place = message.topic, message.partition, message.position
            if message.topic != EVENTS:
                continue  # its workers read it too, and it is theirs to set aside: one message, one dead letter
            if place not in aside:  # once, also where what comes after it has to be tried again
                await dead_letter(self._publisher, message, reason)
                aside.add(place)
                logger.error("set aside: %s", reason, extra={"action": "dead_lettered"} | _place(message))
        if sorted_.passed:
            await self._watch.require(sorted_.passed)
            await self._batch.apply(sorted_.received, sorted_.passed)
            self._watch.passed(sorted_.passed)
            await self._consumer.ack(*sorted_.passed)

    def _say_stuck(self, message: Message, error: Exception) -> None:
        # An exception's text may hold what people wrote, so only its type and place are said.
        where = "; ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in _frames(error)[-4:])
        place = f"{message.topic}, partition {message.partition}, position {message.position}"
        self._readiness.block(BLOCK, f"stuck: {type(error).__name__} at {place}; see the log")
        logger.error(
            "cannot apply a message, trying again: %s at %s",
            type(error).__name__,
            place,
            extra={"action": "projection_stuck", "where": where} | _place(message),
        )
        logger.debug("what it said", exc_info=error)


def slices(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """``messages`` in order, cut so that a slice keeps to ``MOST_MESSAGES`` and ``MOST_BYTES``."""
    begin, size = 0, 0
    for place, message in enumerate(messages):
        size += len(message.payload)
        if place > begin and (size > MOST_BYTES or place - begin >= MOST_MESSAGES):
            yield messages[begin:place]
            begin, size = place, len(message.payload)
    if begin < len(messages):
        yield messages[begin:]


def _place(message: Message) -> dict[str, object]:
    return {"topic": message.topic, "partition": message.partition, "position": str(message.position)}


def _frames(error: Exception) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)
