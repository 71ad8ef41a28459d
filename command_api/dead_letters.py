"""What the consumers set aside: listed, shown, discarded, replayed. On the bus port, like the consumers themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backplane.ports.bus import Bus, Consumer, Message, Mode, Start, UnknownTopic
from backplane.ports.dead_letters import OPERATORS
from backplane.ports.identifiers import new_id
from command_api.tenancy import OPERATOR, SOURCE
from event_schemas.codec import AnyEnvelope, CannotDecode, decode, encode
from event_schemas.dead_letters import DeadLetterDiscarded, DeadLetterReplayed
from event_schemas.envelope import PLATFORM, Envelope
from event_schemas.generation import SubmitPrompt
from event_schemas.topics import EVENTS

_QUIET_S = 2.0
_AT_ONCE = 100
_ABOUT = "dead_letter_"


class NoSuchLetter(LookupError):
    """There is no dead letter with this id."""


class CannotReplay(ValueError):
    """It still cannot be read, or where it came from is no more. Says what to do."""


class HeldElsewhere(Exception):
    """It was not found, and another process is looking at some of them just now: try again."""


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

    @property
    def tenant_id(self) -> UUID | None:
        """Whose it is, None where that cannot be read."""
        try:
            return UUID((self.envelope() or {})["tenantid"])
        except (KeyError, ValueError, AttributeError, TypeError):
            return None

    def decoded(self) -> AnyEnvelope | None:
        """None where this release cannot read it."""
        try:
            return decode(self.message.payload)
        except CannotDecode:
            return None

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
        if envelope is not None and not content:
            envelope = without_content(envelope)
        return {
            "id": self.id,
            "reason": self.reason,
            "topic": self.topic,
            "position": self.message.properties.get(f"{_ABOUT}position"),
            "bytes": len(self.message.payload),
            "envelope": envelope,
        }


def without_content(envelope: dict[str, Any]) -> dict[str, Any]:
    """The envelope, with what people and models wrote named and not shown."""
    data = envelope.get("data")
    if not isinstance(data, dict):
        return envelope
    withheld = {name: _withheld(data[name]) for name in ("content", "title") if data.get(name) is not None}
    return {**envelope, "data": {**data, **withheld}}


def _withheld(written: object) -> str:
    if isinstance(written, dict) and "sealed" in written:
        return f"encrypted, commitment {written.get('commitment')}"
    return "withheld"


class DeadLetterBox:
    """The dead-letter topics of an installation. ``topics`` are theirs, not the live ones."""

    def __init__(self, bus: Bus, topics: Sequence[str]) -> None:
        self._bus = bus
        self._topics = tuple(topics)
        self._one_at_a_time = asyncio.Lock()
        """Two consumers would share the letters, and neither would see all."""

    async def waiting(self) -> list[DeadLetter]:
        """Everything that waits for an operator; nothing is acknowledged. What another process is looking at just now
        is left out. Raises BusError.
        """
        async with self._opened() as consumer:
            letters, _ = await self._received(consumer)
            return sorted(letters, key=lambda letter: letter.id)

    async def find(self, letter_id: str) -> DeadLetter:
        """Raises NoSuchLetter, HeldElsewhere, BusError."""
        async with self._opened() as consumer:
            return await self._found(consumer, letter_id)

    async def discard(self, letter_id: str, *, actor: str = OPERATOR) -> DeadLetter:
        """Take it off the list for ever. Raises NoSuchLetter, HeldElsewhere, BusError."""
        async with self._opened() as consumer:
            letter = await self._found(consumer, letter_id)
            await self._tell(
                DeadLetterDiscarded(
                    letter_id=letter.id, topic=letter.topic, reason=letter.reason, of_tenant_id=letter.tenant_id
                ),
                actor,
            )
            await consumer.ack(letter.message)
            return letter

    async def replay(self, letter_id: str, *, actor: str = OPERATOR) -> str:
        """Publish it again where it came from, then acknowledge it; a prompt becomes a new generation.

        Returns the subject that is now under way. Raises NoSuchLetter, HeldElsewhere, CannotReplay, BusError.
        """
        async with self._opened() as consumer:
            letter = await self._found(consumer, letter_id)
            try:
                envelope = decode(letter.message.payload)
            except CannotDecode as error:
                raise CannotReplay(f"{letter_id} cannot be replayed: {error}; upgrade, or discard it") from None
            if isinstance(envelope.data, SubmitPrompt):
                # One that is not kept has a key of its own, which goes by its generation and is gone if that ended.
                generation_id = new_id() if envelope.data.keeps_content else envelope.data.generation_id
                # Of a batch, that line has ended.
                changed = {"generation_id": generation_id, "fell_back": (), "batch_id": None, "batch_line": None}
                again = envelope.data.model_copy(update=changed)
                envelope = envelope.caused(again, id=new_id(), source=SOURCE, actor=actor)
            properties = {
                name: value for name, value in letter.message.properties.items() if not name.startswith(_ABOUT)
            }
            try:
                await self._bus.publish(letter.topic, encode(envelope), key=letter.message.key, properties=properties)
            except UnknownTopic as error:
                raise CannotReplay(f"{letter_id} cannot be replayed: {error}; or discard it") from None
            await self._tell(
                DeadLetterReplayed(
                    letter_id=letter.id,
                    topic=letter.topic,
                    reason=letter.reason,
                    of_tenant_id=letter.tenant_id,
                    replayed_as=envelope.subject,
                ),
                actor,
            )
            await consumer.ack(letter.message)
            return envelope.subject

    async def _tell(self, event: DeadLetterDiscarded | DeadLetterReplayed, actor: str) -> None:
        told = Envelope.first(event, id=new_id(), source=SOURCE, tenant_id=PLATFORM, actor=actor)
        await self._bus.publish(EVENTS, encode(told), key=str(PLATFORM))

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Consumer]:
        async with self._one_at_a_time:
            await self._bus.ensure_subscription(self._topics, OPERATORS, Start.EARLIEST)
            consumer = await self._bus.subscribe(self._topics, OPERATORS, Mode.SHARED, prefetch=_AT_ONCE)
            try:
                yield consumer
            finally:
                await consumer.close()

    async def _received(self, consumer: Consumer) -> tuple[list[DeadLetter], bool]:
        """What waits, and whether that is all."""
        wanted = sum([sum(await self._bus.backlog(topic, OPERATORS)) for topic in self._topics])
        letters: list[DeadLetter] = []
        while len(letters) < wanted:
            receiving = asyncio.ensure_future(consumer.receive(_AT_ONCE))
            done, _ = await asyncio.wait({receiving}, timeout=_QUIET_S)
            if not done:  # another operator holds the rest; what arrives for a cancelled call comes back on close
                receiving.cancel()
                break
            letters += map(DeadLetter, receiving.result())
        return letters, len(letters) >= wanted

    async def _found(self, consumer: Consumer, letter_id: str) -> DeadLetter:
        letters, all_of_them = await self._received(consumer)
        for letter in letters:
            if letter.id == letter_id:
                return letter
        if not all_of_them:
            raise HeldElsewhere(f"{letter_id!r} is not among the dead letters that nobody else looks at; try again")
        raise NoSuchLetter(f"there is no dead letter {letter_id!r}")
