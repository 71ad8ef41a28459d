"""What a line of the record means for the limits that its prompt was admitted by."""

from __future__ import annotations

from backplane.ports.budget import Opened, Reservation, Spent, nano_usd, scopes
from event_schemas.codec import AnyEnvelope
from event_schemas.embeddings import EmbeddingsMade
from event_schemas.generation import (
    AttemptLost,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    SubmitPrompt,
)
from event_schemas.payload import Payload, PersonaRef
from event_schemas.registry import split

_COUNT: tuple[type[Payload], ...] = (
    SubmitPrompt,
    AttemptLost,
    GenerationCompleted,
    GenerationFailed,
    GenerationCancelled,
    EmbeddingsMade,
)

TYPES = tuple(
    f"{base}.v{version}"
    for base, newest in (split(payload.wire_name) for payload in _COUNT)
    for version in range(1, newest + 1)
)
"""Wire names, of every version, of what ``change`` knows."""


def change(envelope: AnyEnvelope, *, ended: bool) -> Opened | Spent | None:
    """``ended``: the record has its generation's end, here or elsewhere. None: nothing that counts."""
    tenant_id = envelope.tenantid
    match envelope.data:
        case SubmitPrompt(fell_back=()) as prompt:
            tokens, nano = (0, 0) if prompt.reserved is None else (prompt.reserved.tokens, prompt.reserved.nano_usd)
            return Opened(
                Reservation(prompt.generation_id, tenant_id, tokens, nano),
                scopes(tenant_id, prompt.user_id, prompt.key_id, prompt.model, _name(prompt.persona)),
                ended,
            )
        case (AttemptLost() | GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as attempt:
            usage = attempt.usage
            return Spent(
                attempt.generation_id,
                scopes(tenant_id, attempt.user_id, attempt.key_id, attempt.model, _name(attempt.persona)),
                usage.input_tokens + usage.output_tokens,
                # What nobody knows the price of costs nothing here, as in the usage that is shown.
                0 if usage.cost_usd is None else nano_usd(usage.cost_usd),
                envelope.time,
                ends=not isinstance(attempt, AttemptLost),
            )
        case EmbeddingsMade() as made:
            return Spent(
                made.embedding_id,
                scopes(tenant_id, made.user_id, made.key_id, made.model),
                made.usage.input_tokens,
                0 if made.usage.cost_usd is None else nano_usd(made.usage.cost_usd),
                envelope.time,
                ends=True,
            )
    return None


def _name(persona: PersonaRef | None) -> str | None:
    return None if persona is None else persona.name
