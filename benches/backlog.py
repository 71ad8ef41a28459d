"""Events as services write them, prepared so that nothing but projecting them takes time."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.bus import Publisher
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from backplane.settings.prices import PriceTable
from benches.installation import POOL
from event_schemas import topics
from event_schemas.chat import ChatMessage
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.envelope import Envelope
from event_schemas.generation import Parameters, PromptContent, SubmitPrompt
from event_schemas.payload import Usage
from workers.billing import Billing
from workers.deltas import Deltas
from workers.facts import Facts, Timing
from workers.inference.port import Delta

TOKENS = 20
"""Of each answer."""

EVENTS_A_GENERATION = 5
"""The prompt, its start, two batches of tokens (a quarter of a second each, at 50 tokens/s), and its end."""

_FIRST_BATCH = 13
_SHARES = (4, 2, 1, 1)
"""Of each tenant: one has half of all, as there is always one. Its part of a quarter of the events fills the pages that
the record is replayed in, so that more events need no more memory."""

_AT_A_TIME = 32
_TURNS = 4
_WORDS = ("the ", "rain ", "falls ", "on ", "a ", "quiet ", "town ", "and ", "then ", "light ", "comes ", "back ")
_PROMPT = "Tell me, in a sentence or two, what the weather in that town was like when you came back."


@dataclass(frozen=True, slots=True)
class _Talk:
    """One conversation; its tenant's one user goes on in it."""

    tenant_id: UUID
    conversation_id: UUID
    user_id: UUID
    key_id: UUID
    key: DataKey


class Backlog:
    """Conversations of several tenants, side by side, a few turns each."""

    def __init__(self) -> None:
        self._tenants = [tenant for share in _SHARES for tenant in [(new_id(), new_id(), new_id())] * share]
        self.generations: dict[UUID, DataKey] = {}
        """All that was published, and what each was sealed by."""

    async def publish(self, bus: Publisher, generations: int) -> None:
        """Publish that many more, many at a time. Raises what the bus raises."""
        left = generations
        while left:
            talks = [self._talk(number) for number in range(min(left, _AT_A_TIME))]
            parents: list[UUID | None] = [None] * len(talks)
            for _ in range(_TURNS):
                turn = talks[:left]
                told = [facts(talk, parent) for talk, parent in zip(turn, parents, strict=False)]
                await _publish_side_by_side(bus, told)
                parents = [_generation(each[0]) for each in told]
                self.generations |= {_generation(each[0]): talk.key for each, talk in zip(told, turn, strict=True)}
                left -= len(turn)

    def _talk(self, number: int) -> _Talk:
        tenant_id, user_id, key_id = self._tenants[number % len(self._tenants)]
        # No row of it is stored: projections ask for none.
        return _Talk(tenant_id, new_id(), user_id, key_id, DataKey(secrets.token_bytes(32), "conversation/benched"))


def words_of(generation_id: UUID) -> list[str]:
    """The deltas of its answer, so that what is stored can be checked."""
    return random.Random(generation_id.int).choices(_WORDS, k=TOKENS)


_BILLING = Billing({}, PriceTable(()))


def facts(talk: _Talk, parent: UUID | None) -> list[AnyEnvelope]:
    """All of one generation, in order."""
    prompt = SubmitPrompt(
        generation_id=new_id(),
        conversation_id=talk.conversation_id,
        parent_message_id=parent,
        input_message_ids=(new_id(),),
        roles=("user",),
        input_tokens=-(-len(_PROMPT) // 4),
        user_id=talk.user_id,
        key_id=talk.key_id,
        model="scripted",
        pool=POOL,
        parameters=Parameters(),
        content=talk.key.seal(PromptContent(messages=(ChatMessage(role="user", content=_PROMPT),))),
    )
    command = Envelope.first(
        prompt, id=new_id(), source="/parley/command_api", tenant_id=talk.tenant_id, actor=f"key:{talk.key_id}"
    )
    said = Facts(command, prompt, "bench", _BILLING)
    words = words_of(prompt.generation_id)
    deltas = Deltas()
    for word in words:
        deltas.append(Delta(word))
    return [
        command,
        said.started(1),
        said.tokens(1, 1, tuple(words[:_FIRST_BATCH]), talk.key),
        said.tokens(1, _FIRST_BATCH + 1, tuple(words[_FIRST_BATCH:]), talk.key),
        said.completed(
            1,
            "stop",
            Usage(input_tokens=TOKENS, output_tokens=TOKENS, source="provider"),
            deltas,
            Timing(first_token_ms=12, duration_ms=400),
            talk.key,
        ),
    ]


async def _publish_side_by_side(bus: Publisher, generations: Sequence[Sequence[AnyEnvelope]]) -> None:
    """The first fact of each, then the second of each, and so on, as they come where many run at a time."""
    for batch in zip(*generations, strict=True):
        await asyncio.gather(
            *(bus.publish(_topic(envelope), encode(envelope), key=str(envelope.tenantid)) for envelope in batch)
        )


def _topic(envelope: AnyEnvelope) -> str:
    return topics.commands(POOL) if isinstance(envelope.data, SubmitPrompt) else topics.EVENTS


def _generation(command: AnyEnvelope) -> UUID:
    assert isinstance(command.data, SubmitPrompt)
    return command.data.generation_id
