"""Embeddings: admitted as prompts are, made by the ingest service, and recorded before anybody sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from backplane.ports import embeddings, token_estimate
from backplane.ports.budget import Standing, nano_usd
from backplane.ports.bus import Bus, BusRefused, BusUnavailable, MessageTooLarge, UnknownTopic
from backplane.ports.embeddings import Made
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.principal import Principal
from backplane.settings import Settings
from backplane.settings.knowledge import EmbedderKind
from backplane.settings.prices import PriceTable
from command_api.admission import ModelNotAllowed, Refused
from command_api.allowance import Allowance, Asked, without_price
from event_schemas import topics
from event_schemas.codec import encode
from event_schemas.embeddings import EmbeddingsMade
from event_schemas.envelope import Envelope
from event_schemas.limits import Reserved
from event_schemas.payload import Usage

SOURCE = "/parley/command_api"

MOST_TEXTS = 2048

_TEXTS, _CHARACTERS = 32, 100_000
"""Of what is asked for in one piece, so that an answer is no burden to whoever carries it."""

_COUNTS: frozenset[EmbedderKind] = frozenset(("minilm", "sentence-transformers"))
"""Embedders that know how many tokens a text has; others guess."""

_PIECE_S = 20.0
"""The first piece after a start waits for the embedder to be loaded."""


@dataclass(slots=True)
class Embeddings:
    """Of one request."""

    id: UUID
    model: str
    """The embedder, as the settings call it."""
    standings: tuple[Standing, ...]
    vectors: list[bytes] = field(default_factory=list)
    """One for each text, in order, as little-endian floats of four bytes."""
    tokens: int = 0
    served_model: str = ""

    def add(self, made: Made) -> None:
        self.vectors += made.vectors
        self.tokens += made.tokens
        self.served_model = made.model


class Embedding:
    """The handler of requests for embeddings."""

    def __init__(
        self, bus: Bus, signals: Signals, allowance: Allowance, prices: PriceTable, settings: Settings
    ) -> None:
        self._bus = bus
        self._signals = signals
        self._allowance = allowance
        self._prices = prices
        self._settings = settings

    async def embed(
        self,
        principal: Principal,
        model: str,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        traceparent: str | None = None,
    ) -> Embeddings:
        """Vectors of ``texts`` by an embedder, which ``model`` names or is the model of. When this returns, they are in
        the record; where it breaks off, those that were made until then are.

        Raises Refused, ModelNotAllowed, LimitExceeded, EmbeddingFailed, BudgetUnavailable, BusError,
        DatabaseUnavailable.
        """
        embedder = self._admitted(principal, model)
        pieces = list(_pieces(texts))
        asked = Asked(new_id(), principal.user_id, principal.key_id, ((embedder, embedder),), None)
        reserved = await self._reserved(principal, asked, sum(map(token_estimate.text_tokens, texts)))
        deadline_s = _PIECE_S * len(pieces) + self._settings.limits.publish_s
        admitted = await self._allowance.reserve(principal.tenant_id, asked, reserved, publish_s=deadline_s)
        found = Embeddings(asked.generation_id, embedder, admitted.standings)
        try:
            for piece in pieces:
                made = await embeddings.embed(
                    self._signals,
                    principal.tenant_id,
                    embedder,
                    piece,
                    first=len(found.vectors),
                    dimensions=dimensions,
                    within_s=_PIECE_S,
                )
                found.add(made)
        finally:
            # Also where nobody waits any more: what was made was used.
            await asyncio.shield(self._record(principal, found, traceparent))
        return found

    def _admitted(self, principal: Principal, model: str) -> str:
        """Raises Refused, ModelNotAllowed."""
        knowledge = self._settings.knowledge
        embedder = knowledge.embedder_of(model)
        if embedder is None:
            known = ", ".join(sorted(knowledge.embedders))
            raise Refused("unknown-model", "body.model", f"There is no embedder {model!r}. There are: {known}.")
        if principal.models is not None and embedder not in principal.models:
            may = ", ".join(sorted(principal.models)) or "none"
            raise ModelNotAllowed(
                "model-not-allowed", "body.model", f"This key may not ask {embedder!r}. It may ask: {may}."
            )
        return embedder

    async def _reserved(self, principal: Principal, asked: Asked, tokens: int) -> Reserved:
        """Raises Refused, DatabaseUnavailable."""
        embedder = asked.places[0][1]
        cost = self._cost(embedder, Usage(input_tokens=tokens, output_tokens=0, source="estimated"))
        bought = self._settings.knowledge.embedders[embedder].kind == "openai"
        if cost is None and bought and await self._allowance.counts_money(principal.tenant_id, asked):
            raise without_price(embedder)
        return Reserved(tokens=tokens, nano_usd=nano_usd(cost or Decimal(0)))

    def _cost(self, embedder: str, usage: Usage) -> Decimal | None:
        of = self._settings.knowledge.embedders[embedder]
        return self._prices.cost(model=of.model or embedder, backend=of.kind, usage=usage, at=datetime.now(UTC))

    async def _record(self, principal: Principal, found: Embeddings, traceparent: str | None) -> None:
        """Raises BusError."""
        if not found.vectors:
            await self._allowance.release(found.id)
            return
        kind = self._settings.knowledge.embedders[found.model].kind
        usage = Usage(input_tokens=found.tokens, output_tokens=0, source="provider" if kind in _COUNTS else "estimated")
        event = EmbeddingsMade(
            embedding_id=found.id,
            user_id=principal.user_id,
            key_id=principal.key_id,
            model=found.model,
            inputs=len(found.vectors),
            usage=usage.model_copy(update={"cost_usd": self._cost(found.model, usage)}),
            backend=kind,
            served_model=found.served_model,
        )
        envelope = Envelope.first(
            event,
            id=new_id(),
            source=SOURCE,
            tenant_id=principal.tenant_id,
            actor=principal.actor,
            traceparent=traceparent,
        )
        publish_s = self._settings.limits.publish_s
        try:
            async with asyncio.timeout(publish_s):
                await self._bus.publish(topics.EVENTS, encode(envelope), key=str(principal.tenant_id))
        except (MessageTooLarge, UnknownTopic, BusRefused):
            await self._allowance.release(found.id)
            raise
        except TimeoutError:
            raise BusUnavailable(f"the bus took no event within {publish_s:g} s (limits.publish_s)") from None


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    piece: list[str] = []
    for text in texts:
        if piece and (len(piece) == _TEXTS or sum(map(len, piece)) + len(text) > _CHARACTERS):
            yield piece
            piece = []
        piece.append(text)
    if piece:
        yield piece
