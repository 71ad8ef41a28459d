"""Vectors of texts, for whichever door they are asked through."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fastapi import Request

from backplane.ports.embeddings import EmbeddingFailed, TextsRefused
from backplane.security.principal import Principal
from backplane.web.problems import Problem, unavailable
from command_api.embeddings import Embeddings
from command_api.ports import ports_of as command_ports_of
from command_api.submitting import admission_answers
from gateway.ports import ports_of
from gateway.presence import while_there


async def embedded(
    request: Request, principal: Principal, model: str, texts: Sequence[str], *, dimensions: int | None = None
) -> Embeddings:
    """``model`` is an embedder, or any name that clients may know one by. A client that goes away stops what is not
    made yet.

    Raises Problem, Gone, BusError, DatabaseUnavailable.
    """
    ports = command_ports_of(request)
    making = ports.embedding.embed(
        principal,
        ports_of(request).embedder(model),
        texts,
        dimensions=dimensions,
        traceparent=request.headers.get("traceparent"),
    )
    try:
        with admission_answers(ports, model):
            made = await while_there(request, making)
    except TextsRefused as refused:
        where = [{"field": refused.field, "message": str(refused)}]
        raise Problem(
            400, refused.reason.replace("_", "-"), "The texts are refused", str(refused), errors=where
        ) from None
    except EmbeddingFailed as failed:
        raise unavailable("embedder", f"The embeddings were not made: {failed}.") from None
    ports.limit_warnings.notice(made.standings)
    return made


def floats(vector: bytes) -> tuple[float, ...]:
    """Of little-endian ones of four bytes."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)
