"""Searching collections from any process: the ingest service, which has the embedders, is asked by signal.

Both sides of it. Who asks gets names of chunks and reads them with its own eyes, so that nobody is shown what its own
role and tenant do not see.

SearchFailed         ``reason`` is stable, the message is for people and quotes no question
└── NobodySearches   no ingest service answered in time
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from uuid import UUID

from backplane.ports import errands
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals

_ASKED = "searches:asked"


class SearchFailed(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NobodySearches(SearchFailed):
    def __init__(self, within_s: float) -> None:
        super().__init__(
            "search_unavailable", f"no ingest service answered within {within_s:g} s; is `parley ingest` running?"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    id: UUID
    tenant_id: UUID
    collection_id: UUID
    question: str
    most: int


@dataclass(frozen=True, slots=True)
class Found:
    """One chunk. More is better, and scores of two searches cannot be compared."""

    chunk_id: UUID
    score: float


async def search(
    signals: Signals, tenant_id: UUID, collection_id: UUID, question: str, *, most: int, within_s: float
) -> list[Found]:
    """The best chunks of a collection, the best first. Raises SearchFailed."""
    asked = Asked(new_id(), tenant_id, collection_id, question, most)
    message = json.dumps(asdict(asked), default=str)
    try:
        return _read(await errands.answered(signals, _ASKED, _answers_to(asked.id), message, within_s=within_s))
    except TimeoutError:
        raise NobodySearches(within_s) from None


async def asked(signals: Signals) -> AsyncGenerator[Asked]:
    """What is searched for, until closed. The same may come again."""
    async with signals.listen(_ASKED) as messages:
        async for message in messages:
            fields = json.loads(message)
            yield Asked(
                UUID(fields["id"]),
                UUID(fields["tenant_id"]),
                UUID(fields["collection_id"]),
                fields["question"],
                fields["most"],
            )


async def answer(signals: Signals, to: Asked, found: list[Found] | SearchFailed) -> None:
    """Tell who asked."""
    if isinstance(found, SearchFailed):
        said: dict[str, object] = {"reason": found.reason, "message": str(found)}
    else:
        said = {"found": [[str(each.chunk_id), each.score] for each in found]}
    await signals.send(_answers_to(to.id), json.dumps(said))


def _answers_to(id: UUID) -> str:
    return f"searches:answers:{id}"


def _read(message: str) -> list[Found]:
    said = json.loads(message)
    if "reason" in said:
        raise SearchFailed(said["reason"], said["message"])
    return [Found(UUID(chunk_id), score) for chunk_id, score in said["found"]]
