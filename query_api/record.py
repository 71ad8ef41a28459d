"""What Postgres knows of a generation, as frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.token_stream import Cursor, Frame, Kind
from event_schemas.chat import Length, pieces
from query_api import sql
from query_api.sql import Eyes

MOST_DELTAS = 128
"""Deltas in one frame of a finished generation at most."""

_LARGEST = 2**31 - 1

_EVERYBODY = Eyes(everybody=True, user_id=None, key_id=UUID(int=0))

_ENDINGS = {kind.value: kind for kind in Kind if kind.terminal}


@dataclass(frozen=True, slots=True)
class Standing:
    is_visible: bool
    """Whether the eyes that asked may see it: it is theirs, and was not deleted."""
    frames: list[Frame]
    place: Row | None
    """In the queue, as ``place.Place.of`` takes it; None where it is not queued, or nobody wants to know."""


class PostgresRecord:
    """The record of one generation of one tenant."""

    def __init__(self, database: Database, tenant_id: UUID, generation_id: UUID) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._generation_id = generation_id

    async def since(self, cursor: Cursor) -> list[Frame]:
        """See ``following.Record``. Who may follow was decided before."""
        standing = await self.standing(_EVERYBODY, cursor, placed=False)
        return [] if standing is None else standing.frames

    async def standing(self, eyes: Eyes, cursor: Cursor, *, placed: bool = True) -> Standing | None:
        """How far it has come, with its frames beyond ``cursor``; None where nothing is known of it.

        ``placed`` wants its place in the queue, too.

        Raises DatabaseUnavailable.
        """
        async with self._database.tenant(self._tenant_id) as session:
            row = await sql.standing(session, eyes, self._generation_id, placed=placed)
            if row is None:
                return None
            return Standing(row["is_visible"], await self._frames(session, row, cursor), row["place"])

    async def _frames(self, session: TenantSession, row: Row, cursor: Cursor) -> list[Frame]:
        if row["status"] == "queued":
            return []
        attempt = row["attempt"]
        after = min(cursor.seq, _LARGEST) if cursor.attempt == attempt else 0
        if row["status"] in _ENDINGS:
            return [*_started(row), *finished_tokens(row, after), _ending(row)]
        tokens = (
            Frame(Kind.TOKEN, attempt, batch["first_seq"] + len(batch["deltas"]) - 1, batch["deltas"])
            for batch in await sql.token_batches(session, self._generation_id, attempt, after)
        )
        return [*_started(row), *tokens]


def money(amount: Decimal | None) -> str | None:
    """US dollars as JSON carries them: as text, so that nobody rounds them."""
    return None if amount is None else f"{amount:f}"


def served(row: Row) -> dict[str, str] | None:
    """Which pool and model really served a generation; None where none did."""
    if row["served_model"] is None:
        return None
    return {"pool": row["served_pool"], "model": row["served_model"]}


def _started(row: Row) -> Iterator[Frame]:
    if row["attempt"]:
        yield Frame(Kind.STARTED, row["attempt"], 0, detail={"model": row["model"]})


def finished_tokens(row: Row, after: int) -> Iterator[Frame]:
    """The deltas of a finished answer that follow seq ``after``, as they were written, many to a frame."""
    written = pieces(
        row["content"] or "",
        row["delta_lengths"] or (),
        row["reasoning"] or "",
        row["tool_calls"] or (),
        row["logprobs"] or (),
    )
    for first in range(after, len(written), MOST_DELTAS):
        deltas = written[first : first + MOST_DELTAS]
        yield Frame(Kind.TOKEN, row["attempt"], first + len(deltas), deltas)


def _ending(row: Row) -> Frame:
    detail: dict[str, Any] = {
        "model": row["model"],
        "usage": {
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "source": row["usage_source"],
            "cached_input_tokens": row["cached_input_tokens"],
            "reasoning_tokens": row["reasoning_tokens"],
            "cost_usd": money(row["cost_usd"]),
        },
        "served": served(row),
    }
    kind = _ENDINGS[row["status"]]
    if kind is Kind.COMPLETED:
        detail["finish_reason"] = row["finish_reason"]
    if kind is Kind.FAILED:
        detail |= {"reason": row["reason"], "detail": row["detail"]}
    lengths: Sequence[Length] = row["delta_lengths"] or ()
    return Frame(kind, row["attempt"], len(lengths), detail=detail)
