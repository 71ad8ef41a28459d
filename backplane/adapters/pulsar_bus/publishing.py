"""Publishing: a producer for each partition, made when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context

from pulsar import Result
from pulsar.asyncio import Producer, PulsarException

from backplane.adapters.pulsar_bus.broker import Broker
from backplane.adapters.pulsar_bus.errors import silent, translated
from backplane.ports.bus import MAX_MESSAGE_BYTES, BusError, BusRefused, BusUnavailable, MessageTooLarge, Position

_MOST_PENDING = 10_000
_Place = tuple[str, int]


class Publishing:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._producers: dict[_Place, asyncio.Task[Producer]] = {}

    async def publish(
        self, name: str, payload: bytes, *, key: str | None, partition: int | None, properties: Mapping[str, str] | None
    ) -> Position:
        if len(payload) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"a message for topic {name!r} has {len(payload)} bytes; the bus takes {MAX_MESSAGE_BYTES} at most"
            )
        try:
            async with asyncio.timeout(self._broker.timeout_s):
                return await self._publish(name, payload, key=key, partition=partition, properties=properties)
        except TimeoutError:
            raise silent(
                self._broker.address,
                f"did not confirm a message for topic {name!r} within {self._broker.timeout_s:g} s",
            ) from None

    async def _publish(
        self, name: str, payload: bytes, *, key: str | None, partition: int | None, properties: Mapping[str, str] | None
    ) -> Position:
        topic = await self._broker.topic(name)
        place = name, topic.partition(key, partition)
        sending = False
        try:
            producer = await self._producer(place)
            sending = True
            sent = await producer.send(payload, properties=dict(properties) if properties else None, partition_key=key)
        except PulsarException as error:
            failure = await self._given_up(place, error)
            if sending and isinstance(failure, BusRefused):
                # A new connection is refused; what went over the one before it may have arrived.
                failure = BusUnavailable(str(failure))
            raise failure from None
        return Position(sent.ledger_id(), sent.entry_id())

    async def drain(self) -> None:
        """Return once what was handed over is published or refused."""
        made = [each.result() for each in self._producers.values() if each.done() and not each.exception()]
        await asyncio.gather(*(producer.flush() for producer in made), return_exceptions=True)

    async def _producer(self, place: _Place) -> Producer:
        # Shared like the look-up of a topic, for the same reason: order.
        making = self._producers.get(place)
        if making is None:
            making = self._producers[place] = asyncio.create_task(self._make(place), context=Context())
            # Whoever waited for it may be gone when it fails; the next one hears of it, and begins anew.
            making.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(making)

    async def _make(self, place: _Place) -> Producer:
        return await self._broker.client.create_producer(
            self._broker.address.topic(*place),
            # A message is an entry of its own: it has a position of its own, and leaves without waiting for others.
            batching_enabled=False,
            # Sooner than the caller's patience ends, so that the reason can be looked up.
            send_timeout_millis=round(self._broker.timeout_s * 500),
            max_pending_messages=_MOST_PENDING,
        )

    async def _given_up(self, place: _Place, error: PulsarException) -> BusError:
        """What ``error`` means. The next message begins anew: a producer that was fenced, or whose topic was deleted,
        never recovers."""
        meaning = translated(error, self._broker.address, place[0], "publish to")
        if error.error() == Result.ProducerQueueIsFull:
            return meaning
        making = self._producers.pop(place, None)
        if making is not None and making.done() and not making.exception():
            with suppress(PulsarException):
                await making.result().close()
        if error.error() == Result.Timeout:
            try:
                await self._broker.look_up(place[0])
            except BusUnavailable:
                pass
            except BusError as reason:
                return reason
        return meaning
