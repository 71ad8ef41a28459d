"""Prompts for the scripted backend, and what is said of them on the bus."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from backplane.ports.identifiers import new_id
from backplane.settings.pools import PoolSettings
from backplane.settings.prices import PriceTable
from event_schemas.chat import ChatMessage
from event_schemas.codec import AnyEnvelope
from event_schemas.envelope import Envelope
from event_schemas.generation import CancelGeneration, Fallback, Parameters, PromptContent, SubmitPrompt
from event_schemas.payload import Content, Plain
from event_schemas.sources import SourceWish
from workers.billing import Billing

POOL, SPARE = "p", "spare"
FREE = Billing({name: PoolSettings(backend="scripted") for name in (POOL, SPARE)}, PriceTable(()))
"""Where no price is known."""


def scripted(
    *scripts: dict[str, Any],
    conversation: UUID | None = None,
    parent: UUID | None = None,
    text: str = "one two three",
    pool: str = POOL,
    fallbacks: tuple[Fallback, ...] = (),
    sources: tuple[SourceWish, ...] = (),
) -> SubmitPrompt:
    """A prompt whose attempts do as the scripts say; five words without any."""
    return SubmitPrompt(
        generation_id=new_id(),
        conversation_id=conversation or new_id(),
        parent_message_id=parent,
        input_message_ids=(new_id(),),
        roles=("user",),
        input_tokens=-(-len(text) // 4),
        user_id=None,
        key_id=new_id(),
        model="scripted",
        pool=pool,
        fallbacks=fallbacks,
        parameters=Parameters(),
        content=written(
            PromptContent(
                messages=(ChatMessage(role="user", content=text),),
                metadata={"script": json.dumps(list(scripts) or [{"count": 5}])},
                sources=sources,
            )
        ),
    )


def written(content: Content) -> Plain:
    """To be sealed when it is submitted."""
    return Plain(plain=content.model_dump(mode="json"))


def wish(prompt: SubmitPrompt) -> CancelGeneration:
    """The command that cancels ``prompt``."""
    return CancelGeneration(**prompt.model_dump(include=set(CancelGeneration.model_fields)))


def envelope(command: SubmitPrompt | CancelGeneration, tenant_id: UUID) -> AnyEnvelope:
    """``command`` as the command API publishes it."""
    return Envelope.first(command, id=new_id(), source="/parley/test", tenant_id=tenant_id, actor="operator")
