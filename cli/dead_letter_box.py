"""What the consumers set aside: listed, shown, discarded, replayed. On the bus port, like the consumers themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from backplane.ports.bus import Bus, Consumer, Message, Mode, Start
from backplane.ports.dead_letters import OPERATORS
from backplane.ports.identifiers import new_id
from cli.failures import CommandError
from event_schemas.codec import CannotDecode, decode, encode
from event_schemas.generation import SubmitPrompt

_QUIET_S = 2.0
_AT_ONCE = 100
_SOURCE = "/parley/cli"
_ABOUT = "dead_letter_"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that somebody has to see to."""

    message: Message

    @property
    def id(self) -> str:
        """``<topic>:<partition>:<ledger>:<entry>``; stays the same until it is discarded or replayed."""
        place = self.message
        return f"{place.topic}:{place.partition}:{place.position.ledger}:{place.position.entry}"

    @property
    def reason(self) -> str:
        return self.message.properties.get(f"{_ABOUT}reason", "unknown")

    @property
    def topic(self) -> str:
        """Where it was published at first."""
        return self.message.properties.get(f"{_ABOUT}topic", "unknown")

    def envelope(self) -> dict[str, Any] | None:
        """The raw envelope, None where it is none."""
        try:
            found = json.loads(self.message.payload)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def about(self, *, content: bool = False) -> dict[str, Any]:
        """All that is known of it. What people and models wrote is sealed; what an older release left plain is in it
        only if ``content`` is asked for."""
        envelope = self.envelope()
        if envelope is not None and not content and isinstance(envelope.get("data"), dict):
            data = envelope["data"]
            withheld = {name: _withheld(data[name]) for name in ("content", "title") if data.get(name) is not None}
            envelope = {**envelope, "data": {**data, **withheld}}
        return {
            "id": self.id,
            "reason": self.reason,
            "topic": self.topic,
            "position": self.message.properties.get(f"{_ABOUT}position"),
            "bytes": len(self.message.payload),
            "envelope": envelope,
        }


def _withheld(written: object) -> str:
    if isinstance(written, dict) and "sealed" in written:
        return f"encrypted, commitment {written.get('commitment')}"
    return "withheld; --content shows it"


class DeadLetterBox:
    """The dead-letter topics of an installation. ``topics`` are theirs, not the live ones."""

    def __init__(self, bus: Bus, topics: Sequence[str]) -> None:
        self._bus = bus
        self._topics = tuple(topics)

    async def waiting(self) -> list[DeadLetter]:
        """Everything that waits for an operator; nothing is acknowledged. Raises BusError."""
        async with self._opened() as consumer:
            return sorted(await self._received(consumer), key=lambda letter: letter.id)

    async def find(self, letter_id: str) -> DeadLetter:
        """Raises CommandError where there is none with this id, BusError."""
        async with self._opened() as consumer:
            return await self._found(consumer, letter_id)

    async def discard(self, letter_id: str) -> DeadLetter:
        """Acknowledge it without doing anything. Raises CommandError, BusError."""
        async with self._opened() as consumer:
            letter = await self._found(consumer, letter_id)
            await consumer.ack(letter.message)
            return letter

    async def replay(self, letter_id: str) -> str:
        """Publish it again where it came from, then acknowledge it; a prompt becomes a new generation.

        Returns the subject that is now under way. Raises CommandError where it still cannot be read, BusError.
        """
        async with self._opened() as consumer:
            letter = await self._found(consumer, letter_id)
            try:
                envelope = decode(letter.message.payload)
            except CannotDecode as error:
                raise CommandError(f"{letter_id} cannot be replayed: {error}; upgrade, or discard it") from None
            if isinstance(envelope.data, SubmitPrompt):
                # One that is not kept has a key of its own, which goes by its generation and is gone if that ended.
                generation_id = new_id() if envelope.data.keeps_content else envelope.data.generation_id
                again = envelope.data.model_copy(update={"generation_id": generation_id, "fell_back": ()})
                envelope = envelope.caused(again, id=new_id(), source=_SOURCE, actor="operator")
            properties = {
                name: value for name, value in letter.message.properties.items() if not name.startswith(_ABOUT)
            }
            await self._bus.publish(letter.topic, encode(envelope), key=letter.message.key, properties=properties)
            await consumer.ack(letter.message)
            return envelope.subject

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Consumer]:
        await self._bus.ensure_subscription(self._topics, OPERATORS, Start.EARLIEST)
        consumer = await self._bus.subscribe(self._topics, OPERATORS, Mode.SHARED, prefetch=_AT_ONCE)
        try:
            yield consumer
        finally:
            await consumer.close()

    async def _received(self, consumer: Consumer) -> list[DeadLetter]:
        wanted = sum([sum(await self._bus.backlog(topic, OPERATORS)) for topic in self._topics])
        letters: list[DeadLetter] = []
        while len(letters) < wanted:
            receiving = asyncio.ensure_future(consumer.receive(_AT_ONCE))
            done, _ = await asyncio.wait({receiving}, timeout=_QUIET_S)
            if not done:  # another operator holds the rest; what arrives for a cancelled call comes back on close
                receiving.cancel()
                break
            letters += map(DeadLetter, receiving.result())
        return letters

    async def _found(self, consumer: Consumer, letter_id: str) -> DeadLetter:
        for letter in await self._received(consumer):
            if letter.id == letter_id:
                return letter
        raise CommandError(f"there is no dead letter {letter_id!r}; `parley dlq list` names those there are")
