"""Shared subscriptions: a message is asked for when somebody here can work on it, so that it never waits for us while
another is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pulsar import MessageId

from backplane.adapters.pulsar_bus.consumer import Consumer, Place, place
from backplane.adapters.pulsar_bus.partition import Delivery, Partition, Subscription
from backplane.ports.bus import BusUnavailable, Message

_KEEP_S = 0.1
"""How long what nobody here asks for any more is kept until it is given back."""


class SharedConsumer(Consumer):
    """Asks each partition for one message at a time, and only while somebody waits.

    The client's own queue would be refilled as it empties, so that a busy consumer would hold what others could do.
    """

    def __init__(
        self, subscription: Subscription, partitions: Sequence[Partition], watch_s: float, left: Callable[[], None]
    ) -> None:
        super().__init__(subscription, partitions, watch_s, left)
        self._asked: set[Partition] = set()
        self._held: dict[Place, tuple[Partition, MessageId]] = {}

    async def ack(self, *messages: Message) -> None:
        by_partition: dict[Partition, dict[Place, MessageId]] = {}
        for message in messages:
            held = self._held.pop(place(message), None)
            if held is not None:
                by_partition.setdefault(held[0], {})[place(message)] = held[1]
        await asyncio.gather(*(self._acknowledge(partition, ids) for partition, ids in by_partition.items()))

    async def _acknowledge(self, partition: Partition, ids: dict[Place, MessageId]) -> None:
        try:
            await partition.acknowledge(*ids.values())
        except BusUnavailable:
            # Still ours: it can be acked again, or given back.
            for where, id in ids.items():
                self._held.setdefault(where, (partition, id))
            raise

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        held = self._held.pop(place(message), None)
        if held is not None:
            self._run(self._give_back(*held, delay))

    def _joined(self, partition: Partition) -> None:
        if self._asked_for:
            self._ask(partition)

    def _wanted(self) -> None:
        for partition in self._partitions.values():
            if partition not in self._asked:
                self._ask(partition)

    def _ask(self, partition: Partition) -> None:
        self._asked.add(partition)
        self._read(self._receive(partition))

    async def _receive(self, partition: Partition) -> None:
        while (delivery := await partition.receive()) is not None:
            self._arrive(partition, delivery)
            # Asked again at once where more are wanted: whoever waits is some turns of the event loop away from it.
            if len(self._arrived) >= self._asked_for:
                break
        self._asked.discard(partition)

    def _arrive(self, partition: Partition, delivery: Delivery) -> None:
        message, id = delivery
        self._held[place(message)] = partition, id
        if any(place(each) == place(message) for each in self._arrived):
            return  # it waits here still, and the connection was lost meanwhile
        self._hand_out(message)
        if not self._asked_for:
            self._run(self._give_back_unless_taken(message))

    def _taken(self) -> None:
        for message in self._arrived:
            self._run(self._give_back_unless_taken(message))

    async def _give_back_unless_taken(self, message: Message) -> None:
        await asyncio.sleep(_KEEP_S)
        if message in self._arrived:
            self._arrived.remove(message)
            await self.nack(message)

    async def _give_back(self, partition: Partition, id: MessageId, delay: float) -> None:
        await asyncio.sleep(delay)
        await partition.give_back(id)
