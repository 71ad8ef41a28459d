"""From the bus to the batch and back to the ack. Nothing is ever skipped: what cannot be applied is tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from backplane.ports.bus import Consumer, Message, Position, Publisher
from backplane.ports.dead_letters import dead_letter
from backplane.telemetry.readiness import Readiness
from event_schemas.topics import EVENTS
from projections.batch import Batch
from projections.event_log import MOST_BYTES
from projections.insistence import BLOCK, Insistence, Sorted, Stopped, place_of
from projections.positions import Place

logger = logging.getLogger(__name__)

MOST_MESSAGES = 500
"""Messages of one transaction at most."""

GATHER_S = 0.05
"""From the beginning of one batch to that of the next at least: a transaction for each event would cost more than the
events. What comes after a silence is not held up."""


_Place = tuple[str, int, Position]


class Watch(Protocol):
    """See ``projections.continuity``."""

    async def least(self, messages: Sequence[Message]) -> Mapping[Place, Position]:
        """How far we must have come before ``messages``, where that is known. Raises BusError."""

    def passed(self, messages: Sequence[Message]) -> None:
        """``messages`` are committed."""


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
        self._insistence = Insistence(readiness, stop)

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
            newer = await self._insistence.until_done(slice_, partial(self._apply, aside))
            if newer is not None:
                message, error = newer
                self._readiness.block(BLOCK, str(error))
                logger.error(
                    "stopped reading: %s",
                    error,
                    extra={"action": "newer_version_met", "wire_name": error.wire_name} | place_of(message),
                )
                return False
        return True

    async def _apply(self, aside: set[_Place], sorted_: Sorted) -> None:
        for message, reason in sorted_.poison:
            place = message.topic, message.partition, message.position
            if message.topic != EVENTS:
                continue  # its workers read it too, and it is theirs to set aside: one message, one dead letter
            if place not in aside:  # once, also where what comes after it has to be tried again
                await dead_letter(self._publisher, message, reason)
                aside.add(place)
                logger.error("set aside: %s", reason, extra={"action": "dead_lettered"} | place_of(message))
        if sorted_.passed:
            least = await self._watch.least(sorted_.passed)
            await self._batch.apply(sorted_.received, sorted_.passed, least)
            self._watch.passed(sorted_.passed)
            await self._consumer.ack(*sorted_.passed)
        self._readiness.unblock(BLOCK)


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
