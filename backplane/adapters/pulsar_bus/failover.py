"""Failover subscriptions: a partition is read in order by one consumer, which acknowledges up to its first gap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pulsar import MessageId

from backplane.adapters.pulsar_bus.consumer import Consumer, Place, place
from backplane.adapters.pulsar_bus.partition import Partition, Subscription
from backplane.ports.bus import BusUnavailable, Message, Position


@dataclass(slots=True)
class _Progress:
    """How far a partition is. ``open`` are the messages received and not yet acknowledged to the broker, in order."""

    newest: Position | None = None
    open: dict[Position, MessageId] = field(default_factory=dict)
    done: set[Position] = field(default_factory=set)

    def passed(self) -> MessageId | None:
        """Forget all before the first that is not done, and return the last of these."""
        last = None
        while self.open and (first := next(iter(self.open))) in self.done:
            last = self.open.pop(first)
            self.done.discard(first)
        return last


class FailoverConsumer(Consumer):
    """``room`` is how many messages may wait here until they are asked for."""

    def __init__(
        self,
        subscription: Subscription,
        partitions: Sequence[Partition],
        watch_s: float,
        left: Callable[[], None],
        room: int,
    ) -> None:
        super().__init__(subscription, partitions, watch_s, left)
        self._room = room
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._progress: dict[Partition, _Progress] = {}
        self._nacked: set[Place] = set()

    async def ack(self, *messages: Message) -> None:
        touched: dict[Partition, _Progress] = {}
        for message in messages:
            partition = self._partitions[message.topic, message.partition]
            progress = touched[partition] = self._progress[partition]
            if message.position in progress.open and place(message) not in self._nacked:
                progress.done.add(message.position)
        marks = ((partition, progress.passed()) for partition, progress in touched.items())
        await asyncio.gather(*(partition.acknowledge_up_to(mark) for partition, mark in marks if mark is not None))

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        partition = self._partitions[message.topic, message.partition]
        if message.position in self._progress[partition].open and place(message) not in self._nacked:
            self._nacked.add(place(message))
            self._run(self._hand_out_again(message, delay))

    def _joined(self, partition: Partition) -> None:
        self._progress[partition] = _Progress()
        self._read(self._receive(partition))

    def _wanted(self) -> None:
        """Nothing to do: partitions are read ahead."""

    def _taken(self) -> None:
        if len(self._arrived) < self._room:
            self._has_room.set()

    async def _receive(self, partition: Partition) -> None:
        while (delivery := await partition.receive()) is not None:
            await self._arrive(partition, *delivery)

    async def _arrive(self, partition: Partition, message: Message, id: MessageId) -> None:
        progress = self._progress[partition]
        if progress.newest is not None and message.position <= progress.newest:
            # The broker begins again with what it does not know to be acknowledged: after a lost connection, or when
            # it moved the topic. It is still ours to finish, unless it is done and only the word of that got lost.
            if not progress.open or message.position < next(iter(progress.open)):
                with suppress(BusUnavailable):  # then it comes once more
                    await partition.acknowledge_up_to(id)
            return
        progress.newest = message.position
        progress.open[message.position] = id
        self._hand_out(message)
        if len(self._arrived) >= self._room:
            self._has_room.clear()
        await self._has_room.wait()

    async def _hand_out_again(self, message: Message, delay: float) -> None:
        await asyncio.sleep(delay)
        self._nacked.discard(place(message))
        self._arrived.appendleft(message)
        self._changed.set()
