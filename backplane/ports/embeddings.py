"""Having vectors made of texts from any process: the ingest service, which has the embedders, is asked by signal.

Both sides of it.

EmbeddingFailed      ``reason`` is stable, the message is for people and quotes no text
├── TextsRefused     these texts will never be embedded by this embedder
└── NobodyEmbeds     no ingest service answered in time
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from backplane.ports import errands
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals

_ASKED = "embeddings:asked"


class EmbeddingFailed(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TextsRefused(EmbeddingFailed):
    """``field`` is what of the request is meant: ``input`` or ``dimensions``."""

    def __init__(self, reason: str, message: str, field: str = "input") -> None:
        super().__init__(reason, message)
        self.field = field


class NobodyEmbeds(EmbeddingFailed):
    def __init__(self, within_s: float) -> None:
        super().__init__(
            "embedder_unavailable", f"no ingest service answered within {within_s:g} s; is `parley ingest` running?"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    id: UUID
    tenant_id: UUID
    embedder: str
    texts: Sequence[str]
    first: int
    """Number of the first of them in the request, from 0."""
    dimensions: int | None
    """That the vectors have to have; None: any."""


@dataclass(frozen=True, slots=True)
class Made:
    """``vectors`` are one for each text, in order, as little-endian floats of four bytes."""

    vectors: Sequence[bytes]
    tokens: int
    model: str
    """Only vectors of one can be compared."""


async def embed(
    signals: Signals,
    tenant_id: UUID,
    embedder: str,
    texts: Sequence[str],
    *,
    first: int,
    dimensions: int | None,
    within_s: float,
) -> Made:
    """Vectors of ``texts``. Raises EmbeddingFailed."""
    asked = Asked(new_id(), tenant_id, embedder, texts, first, dimensions)
    message = json.dumps(asdict(asked), default=str)
    try:
        return _read(await errands.answered(signals, _ASKED, _answers_to(asked.id), message, within_s=within_s))
    except TimeoutError:
        raise NobodyEmbeds(within_s) from None


async def asked(signals: Signals) -> AsyncGenerator[Asked]:
    """What is to be embedded, until closed. The same may come again."""
    async with signals.listen(_ASKED) as messages:
        async for message in messages:
            fields = json.loads(message)
            yield Asked(
                UUID(fields["id"]),
                UUID(fields["tenant_id"]),
                fields["embedder"],
                fields["texts"],
                fields["first"],
                fields["dimensions"],
            )


async def answer(signals: Signals, to: Asked, made: Made | EmbeddingFailed) -> None:
    """Tell who asked."""
    if isinstance(made, EmbeddingFailed):
        field = made.field if isinstance(made, TextsRefused) else None
        said: dict[str, object] = {"reason": made.reason, "message": str(made), "field": field}
    else:
        vectors = [base64.b64encode(vector).decode() for vector in made.vectors]
        said = {"vectors": vectors, "tokens": made.tokens, "model": made.model}
    await signals.send(_answers_to(to.id), json.dumps(said))


def _answers_to(id: UUID) -> str:
    return f"embeddings:answers:{id}"


def _read(message: str) -> Made:
    said = json.loads(message)
    if "reason" not in said:
        return Made([base64.b64decode(vector) for vector in said["vectors"]], said["tokens"], said["model"])
    if said["field"] is not None:
        raise TextsRefused(said["reason"], said["message"], said["field"])
    raise EmbeddingFailed(said["reason"], said["message"])
