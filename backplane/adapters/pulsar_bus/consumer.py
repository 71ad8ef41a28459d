"""What consumers of both modes have in common: what has arrived, who waits for it, and whether all is still there."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from backplane.adapters.pulsar_bus.partition import Partition, Subscription
from backplane.ports.bus import BusError, BusUnavailable, Message, Position, UnknownTopic

logger = logging.getLogger(__name__)

_REJOIN_S = 3.0
"""How long a partition may be cut off from a broker that answers until we join it anew."""

Place = tuple[str, int, Position]


class Consumer(ABC):
    """``left`` is called once it is closed. ``watch_s`` is the time between two looks at what became of its topics."""

    def __init__(
        self, subscription: Subscription, partitions: Sequence[Partition], watch_s: float, left: Callable[[], None]
    ) -> None:
        self._subscription = subscription
        self._partitions = {(each.topic, each.index): each for each in partitions}
        self._topics = sorted({each.topic for each in partitions})
        self._watch_s = watch_s
        self._left = left
        self._arrived: deque[Message] = deque()
        self._asked_for = 0
        """Messages that those who wait would take."""
        self._changed = asyncio.Event()
        self._ended: BusError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._cut_off: dict[Partition, float] = {}

    def start(self) -> None:
        for partition in self._partitions.values():
            self._joined(partition)
        self._run(self._watch())

    async def receive(self, limit: int = 1) -> Sequence[Message]:
        self._asked_for += limit
        try:
            while not self._arrived:
                if self._ended is not None:
                    raise self._ended
                self._changed.clear()
                self._wanted()
                await self._changed.wait()
        finally:
            self._asked_for -= limit
        taken = [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]
        self._taken()
        return taken

    @abstractmethod
    async def ack(self, *messages: Message) -> None: ...

    @abstractmethod
    async def nack(self, message: Message, *, delay: float = 0.0) -> None: ...

    async def close(self) -> None:
        if self._tasks or self._ended is None:
            self._end(BusError(f"the consumer of {', '.join(self._topics)} is closed"))
            tasks, self._tasks = self._tasks, set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*(partition.close() for partition in self._partitions.values()))
            # A receive that is cancelled while its partition is open could be given a message that nobody sees.
            for reading in self._reading:
                reading.cancel()
            await asyncio.gather(*tasks, *self._reading, return_exceptions=True)
            self._left()

    @abstractmethod
    def _joined(self, partition: Partition) -> None:
        """Begin with a partition."""

    @abstractmethod
    def _wanted(self) -> None:
        """Somebody waits, and nothing is there."""

    @abstractmethod
    def _taken(self) -> None:
        """Something was handed out."""

    def _hand_out(self, message: Message) -> None:
        self._arrived.append(message)
        self._changed.set()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        self._start(work, self._tasks)

    def _read(self, work: Coroutine[None, None, None]) -> None:
        """Run what receives; it is left alone until its partition is closed."""
        self._start(work, self._reading)

    def _start(self, work: Coroutine[None, None, None], kind: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        kind.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._reading.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nobody would read a partition any more, unseen. Whoever receives is told, and joins anew.
            level = logging.WARNING if isinstance(error, BusError) else logging.ERROR
            logger.log(level, "a consumer cannot go on", exc_info=error, extra={"action": "consumer_failed"})
            self._end(BusUnavailable(f"the consumer of {', '.join(self._topics)} cannot go on: {type(error).__name__}"))

    def _end(self, reason: BusError) -> None:
        if self._ended is None:
            self._ended = reason
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_s)
            for topic in self._topics:
                try:
                    await self._look_after(topic)
                except UnknownTopic as gone:
                    self._end(gone)
                    return
                except BusUnavailable:
                    pass  # the client keeps trying, and so do we
                except BusError as refused:
                    self._end(refused)
                    return

    async def _look_after(self, topic: str) -> None:
        """Join partitions that were added, and those which the client lost and does not find again."""
        found = await self._subscription.broker.look_up(topic)
        for index in range(found.partitions):
            if (topic, index) not in self._partitions:
                partition = self._partitions[topic, index] = await self._subscription.join(topic, index)
                logger.info(
                    "partition joined", extra={"action": "partition_joined", "topic": topic, "partition": index}
                )
                self._joined(partition)
        now = asyncio.get_running_loop().time()
        for partition in [each for each in self._partitions.values() if each.topic == topic]:
            if partition.connected:
                self._cut_off.pop(partition, None)
            elif now - self._cut_off.setdefault(partition, now) >= _REJOIN_S:
                await partition.rejoin()
                del self._cut_off[partition]
                place = {"topic": topic, "partition": partition.index}
                logger.warning("partition joined anew", extra={"action": "partition_joined_anew"} | place)


def place(message: Message) -> Place:
    return message.topic, message.partition, message.position
