"""A bus that delivers what a rule says, to whom it says: late, twice, to several. At least once is all it promises."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from backplane.ports.bus import BusUnavailable, Message, Position
from tests.integration.generation_machine.process import Place, Process


class Letter(NamedTuple):
    """One message of the bus."""

    topic: str
    entry: int


class Broker:
    """All topics, one partition each; the ``Log`` port. ``on_ack`` is told the payload of what is acked."""

    def __init__(self, on_ack: Callable[[bytes], None]) -> None:
        self._on_ack = on_ack
        self.log: defaultdict[str, list[Message]] = defaultdict(list)
        self.acked: set[Letter] = set()
        self.holders: defaultdict[Letter, set[str]] = defaultdict(set)
        """Who received it and neither acked nor gave it back."""

    def append(self, topic: str, payload: bytes, key: str | None = None) -> Letter:
        entry = len(self.log[topic])
        self.log[topic].append(Message(topic, 0, Position(1, entry), key, payload))
        return Letter(topic, entry)

    async def read(self, topic: str, partition: int, *, after: Position | None, limit: int) -> Sequence[Message]:
        return [one for one in self.log[topic] if after is None or one.position > after][:limit]

    async def heads(self, topic: str) -> Sequence[Position | None]:
        return [self.log[topic][-1].position if self.log[topic] else None]

    def message(self, letter: Letter) -> Message:
        return self.log[letter.topic][letter.entry]

    def ack(self, message: Message) -> None:
        self._on_ack(message.payload)
        letter = Letter(message.topic, message.position.entry)
        self.acked.add(letter)
        self.holders.pop(letter, None)

    def give_back(self, name: str, message: Message | None = None) -> None:
        """This message, or all that ``name`` has."""
        for letter, holders in self.holders.items():
            if message is None or letter == (message.topic, message.position.entry):
                holders.discard(name)

    def unacked(self, *topics: str) -> list[Letter]:
        letters = (Letter(topic, entry) for topic in topics for entry in range(len(self.log[topic])))
        return [letter for letter in letters if letter not in self.acked]

    def unowned(self, *topics: str) -> list[Letter]:
        """What has to be delivered yet, or again."""
        return [letter for letter in self.unacked(*topics) if not self.holders[letter]]


class Mouth:
    """The ``Publisher`` port of one process. ``witness`` sees what is about to be published."""

    def __init__(self, broker: Broker, process: Process, witness: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._broker, self._process, self._witness = broker, process, witness

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        async with self._process.call(Place.PUBLISH, BusUnavailable):
            await self._witness(topic, payload)
            letter = self._broker.append(topic, payload, key)
        return Position(1, letter.entry)

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        return [len(self._broker.unacked(topic))]


class Inbox:
    """The ``Consumer`` port of one process."""

    def __init__(self, broker: Broker, process: Process) -> None:
        self._broker, self._process = broker, process
        self._waiting: asyncio.Queue[Message] = asyncio.Queue()

    def put(self, letter: Letter) -> None:
        self._broker.holders[letter].add(self._process.name)
        self._waiting.put_nowait(self._broker.message(letter))

    async def receive(self, limit: int = 1) -> Sequence[Message]:
        received = [await self._waiting.get()]
        while len(received) < limit and not self._waiting.empty():
            received.append(self._waiting.get_nowait())
        return received

    async def ack(self, *messages: Message) -> None:
        try:
            async with self._process.call(Place.ACK, BusUnavailable):
                for message in messages:
                    self._broker.ack(message)
        except BusUnavailable:
            for message in messages:
                self._broker.give_back(self._process.name, message)
            raise

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        self._process.check()
        self._broker.give_back(self._process.name, message)

    async def close(self) -> None:
        """What is held is given back when the process has ended."""
