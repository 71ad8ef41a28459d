"""From a valid request to a durable command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from uuid import UUID

from prometheus_client import Counter

from backplane.ports.budget import Standing
from backplane.ports.bus import Bus, BusRefused, BusUnavailable, MessageTooLarge, UnknownTopic
from backplane.ports.database import Database
from backplane.ports.freshness import Freshness
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.settings import Settings
from backplane.telemetry import traces
from command_api import conversations, idempotency
from command_api.admission import Refused, admit
from command_api.allowance import Allowance, Asked, LimitExceeded
from command_api.asked_as import asked_as
from command_api.content_keys import ContentKeys, KeyGone, NewKey, Sealing
from command_api.conversations import NoSuch, Place
from command_api.idempotency import BodyHash, Key, Stored, StoredBefore
from command_api.known_personas import KnownPersonas
from command_api.lanes import Lanes
from command_api.prompt import Accepted, OfBatch, PromptBody, command_of, content_of
from command_api.prompt_sources import PromptSources
from command_api.source_body import wishes_of
from event_schemas import topics
from event_schemas.codec import decode, encode
from event_schemas.envelope import Envelope
from event_schemas.generation import CancelGeneration, SubmitPrompt

SOURCE = "/parley/command_api"

logger = logging.getLogger(__name__)

_accepted = Counter(
    "parley_prompts_accepted_total",
    "Prompts whose first request was answered 202; who repeated a failed one is not counted",
    ["pool"],
)


class ProjectionsLag(Exception):
    """What the request names may be there, but the read models are too far behind to say."""


class Submitted(NamedTuple):
    """An accepted prompt, and how its limits stand."""

    accepted: Accepted
    standings: tuple[Standing, ...]


@dataclass(slots=True)
class _Publishing:
    began: bool = False


class Submission:
    """The handlers of the commands that travel on the bus."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        keys: ContentKeys,
        body_hash: BodyHash,
        allowance: Allowance,
        personas: KnownPersonas,
        settings: Settings,
    ) -> None:
        self._bus = bus
        self._database = database
        self._keys = keys
        self._body_hash = body_hash
        self._allowance = allowance
        self._personas = personas
        self._settings = settings
        self._sources = PromptSources(database)
        self._lanes = Lanes(bus)
        self._freshness = Freshness(bus, database, topics.all_topics(list(settings.pools)))

    async def submit(
        self,
        principal: Principal,
        body: PromptBody,
        idempotency_key: str | None,
        traceparent: str | None,
        of_batch: OfBatch | None = None,
    ) -> Submitted:
        """Accept a prompt: when this returns, the prompt is durable. A line of a batch is its own idempotency key.

        Raises Refused, LimitExceeded, NoSuch, TakesNoPrompts, ProjectionsLag, KeyReused, BudgetUnavailable, and what
        the bus, the database and the data keys raise.
        """
        tenant_id = principal.tenant_id
        key = None
        if idempotency_key is not None:
            key = Key(tenant_id, idempotency_key, self._body_hash(body.as_given()))
        elif of_batch is not None:
            key = self._key_of(tenant_id, of_batch)
        # A prompt that begins a conversation asks nothing more than whether its key is free, and storing says that.
        known = None if key is None or body.begins_a_conversation else await idempotency.find(self._database, key)
        if known is not None:
            return await self._publish_again(known, tenant_id)
        with traces.span("admission"):
            place = await self._place(principal, body)
            try:
                asked_for = await asked_as(self._personas, principal, body, place)
                body = asked_for.body
                admitted = admit(body, self._settings, principal.models, asked_for.fallbacks)
            except (Refused, NoSuch):
                # What is refused today may have been accepted before.
                known = None if key is None else await idempotency.find(self._database, key)
                if known is None:
                    raise
                return await self._publish_again(known, tenant_id)
            places = ((admitted.pool, admitted.model), *((one.pool, one.model) for one in admitted.fallbacks))
            persona = asked_for.persona
            asked = Asked(
                new_id(),
                principal.user_id,
                principal.key_id,
                places,
                body.parameters.max_tokens,
                None if persona is None else persona.name,
            )
            try:
                content = await self._sources.of(tenant_id, content_of(body, of_batch), wishes_of(body.sources))
                estimate = await self._allowance.estimated(tenant_id, asked, content, said_before=place.tokens)
                admission = await self._allowance.reserve(tenant_id, asked, estimate.reserved)
            except (Refused, LimitExceeded):
                known = None if key is None else await idempotency.find(self._database, key)
                if known is None:
                    raise
                return await self._publish_again(known, tenant_id)
        prompt = partial(
            command_of,
            body,
            principal,
            content=content,
            estimate=estimate,
            generation_id=asked.generation_id,
            conversation_id=place.conversation_id,
            parent_message_id=place.parent_message_id,
            wants_title=place.wants_title,
            model=admitted.model,
            pool=admitted.pool,
            fallbacks=admitted.fallbacks,
            persona=persona,
            of_batch=of_batch,
        )
        topic, command_id = topics.commands(admitted.pool), new_id()
        try:
            async with self._reserved(asked.generation_id) as publishing:
                lane = await self._lanes.choose(topic, tenant_id)
                data_key = await self._data_key(principal, place, asked.generation_id)
                if key is None:
                    sealing = data_key if isinstance(data_key, Sealing) else await self._keys.add(data_key)
                    command = prompt(sealing=sealing)
                    stored = Stored(topic, lane, _encoded(command, command_id, principal, traceparent))
                else:
                    # In one transaction, so that who comes second leaves no data key behind.
                    async with self._database.tenant(tenant_id) as session:
                        within = self._keys.add_within
                        sealing = data_key if isinstance(data_key, Sealing) else await within(session, data_key)
                        command = prompt(sealing=sealing)
                        stored = Stored(topic, lane, _encoded(command, command_id, principal, traceparent))
                        await idempotency.store(session, key, stored)
                publishing.began = True
                await self._publish(stored, tenant_id)
            _accepted.labels(admitted.pool).inc()
            about = {"generation_id": str(asked.generation_id), "correlation_id": str(command_id)}
            logger.info("prompt accepted", extra={"action": "prompt_accepted", "pool": admitted.pool} | about)
        except StoredBefore as before:
            return await self._publish_again(before.stored, tenant_id)
        except KeyGone:
            raise NoSuch("conversation") from None
        return Submitted(Accepted.of(command), admission.standings)

    async def _data_key(self, principal: Principal, place: Place, generation_id: UUID) -> Sealing | NewKey:
        tenant_id, conversation_id = principal.tenant_id, place.conversation_id
        if place.data_key is not None:
            return Sealing(await self._keys.of_conversation(tenant_id, conversation_id, place.data_key), True)
        return await self._keys.new(tenant_id, conversation_id, generation_id, place.user_id)

    async def submit_again(self, tenant_id: UUID, of_batch: OfBatch) -> Submitted | None:
        """A line of a batch as it was submitted before; None where it was not, so that nothing is. Raises as
        ``submit``."""
        known = await idempotency.find(self._database, self._key_of(tenant_id, of_batch))
        return None if known is None else await self._publish_again(known, tenant_id)

    def _key_of(self, tenant_id: UUID, of_batch: OfBatch) -> Key:
        # Its line never changes, while what a later release makes of it may.
        text = of_batch.idempotency_key
        return Key(tenant_id, text, self._body_hash(text.encode()))

    async def cancel(self, principal: Principal, generation_id: UUID) -> None:
        """Ask for a generation to be stopped: when this returns, the wish is durable. Raises as ``submit``."""
        try:
            command = await conversations.cancel_of(self._database, principal, generation_id)
        except NoSuch:
            await self._wait_for_projections()
            command = await conversations.cancel_of(self._database, principal, generation_id)
        await self.publish_cancel(principal, command)

    async def publish_cancel(self, principal: Principal, command: CancelGeneration) -> None:
        """Publish on ``control``. Raises BusError."""
        envelope = Envelope.first(
            command, id=new_id(), source=SOURCE, tenant_id=principal.tenant_id, actor=principal.actor
        )
        await self._bus.publish(topics.CONTROL, encode(envelope), key=str(principal.tenant_id))

    async def _place(self, principal: Principal, body: PromptBody) -> Place:
        goes_on_after_newest = (
            body.conversation_id is not None and body.parent_message_id is None and not body.begins_anew
        )
        if goes_on_after_newest:
            # Which message is the newest one, only the read model says; so it has to know all that was accepted.
            await self._wait_for_projections()
        try:
            return await conversations.place(self._database, principal, body)
        except NoSuch:
            if goes_on_after_newest:
                raise
        await self._wait_for_projections()
        return await conversations.place(self._database, principal, body)

    async def _wait_for_projections(self) -> None:
        if not await self._freshness.caught_up(self._settings.read_your_writes_s):
            raise ProjectionsLag

    async def _publish_again(self, stored: Stored, tenant_id: UUID) -> Submitted:
        envelope = decode(stored.command)
        assert isinstance(envelope.data, SubmitPrompt)
        standings = await self._allowance.reserve_again(tenant_id, envelope.data)
        async with self._reserved(envelope.data.generation_id) as publishing:
            publishing.began = True
            await self._publish(stored, tenant_id)
        return Submitted(Accepted.of(envelope.data), standings)

    async def _publish(self, stored: Stored, tenant_id: UUID) -> None:
        with traces.span(f"publish {stored.topic}", kind=traces.Kind.PRODUCER):
            await self._bus.publish(stored.topic, stored.command, key=str(tenant_id), partition=stored.partition)

    @asynccontextmanager
    async def _reserved(self, generation_id: UUID) -> AsyncIterator[_Publishing]:
        """What is reserved is given back where nothing was published for certain; else the record decides."""
        publishing = _Publishing()
        try:
            async with asyncio.timeout(self._settings.limits.publish_s):
                yield publishing
        except (MessageTooLarge, UnknownTopic, BusRefused):
            await self._allowance.release(generation_id)
            raise
        except TimeoutError:
            if not publishing.began:
                await self._allowance.release(generation_id)
            raise BusUnavailable(
                f"the bus took no prompt within {self._settings.limits.publish_s:g} s (limits.publish_s)"
            ) from None
        except BaseException:
            if not publishing.began:
                await self._allowance.release(generation_id)
            raise


def _encoded(command: SubmitPrompt, id: UUID, principal: Principal, traceparent: str | None) -> bytes:
    return encode(
        Envelope.first(
            command,
            id=id,
            source=SOURCE,
            tenant_id=principal.tenant_id,
            actor=principal.actor,
            traceparent=traces.current() or traceparent,
        )
    )
