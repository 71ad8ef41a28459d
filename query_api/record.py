"""What Postgres knows of a generation, as frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from backplane.ports.database import Database, Row
from backplane.ports.token_stream import Cursor, Frame, Kind
from backplane.security.content import CannotRead, ContentErased, DataKeys
from event_schemas.chat import pieces, with_logprobs
from query_api import sql
from query_api.opening import Opener, unreadable
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

    def __init__(self, database: Database, data_keys: DataKeys, tenant_id: UUID, generation_id: UUID) -> None:
        self._database = database
        self._data_keys = data_keys
        self._tenant_id = tenant_id
        self._generation_id = generation_id

    async def since(self, cursor: Cursor) -> list[Frame]:
        """See ``following.Record``. Who may follow was decided before."""
        standing = await self.standing(_EVERYBODY, cursor, placed=False)
        return [] if standing is None else standing.frames

    async def standing(self, eyes: Eyes, cursor: Cursor, *, placed: bool = True) -> Standing | None:
        """How far it has come, with its frames beyond ``cursor``; None where nothing is known of it.

        ``placed`` wants its place in the queue, too.

        Raises DatabaseUnavailable, WrappingUnavailable, and CannotRead where a finished answer is unreadable.
        """
        batches: list[Row] = []
        async with self._database.tenant(self._tenant_id) as session:
            row = await sql.standing(session, eyes, self._generation_id, placed=placed)
            if row is None:
                return None
            attempt = row["attempt"]
            after = min(cursor.seq, _LARGEST) if cursor.attempt == attempt else 0
            if row["status"] == "running":
                batches = await sql.token_batches(session, self._generation_id, attempt, after)
        frames: list[Frame] = []
        if row["is_mine"] and row["status"] != "queued":
            opener = await Opener.of(self._data_keys, self._tenant_id, row["conversation_id"], row["wrapped"])
            ended = row["status"] in _ENDINGS
            told = self._ended(row, after, opener) if ended else self._said(attempt, batches, opener)
            frames = [*_started(row), *told]
        return Standing(row["is_visible"], frames, row["place"])

    def _said(self, attempt: int, batches: list[Row], opener: Opener) -> Iterator[Frame]:
        for batch in batches:
            content, _ = opener.show(batch["content"], f"generation:{self._generation_id}")
            if content is not None:
                deltas = with_logprobs(content["deltas"], content.get("logprobs") or ())
                yield Frame(Kind.TOKEN, attempt, batch["first_seq"] + len(deltas) - 1, deltas)

    def _ended(self, row: Row, after: int, opener: Opener) -> Iterator[Frame]:
        deltas = row["deltas"] or 0
        is_erased = row["is_erased"]
        answer: Row = {}
        if row["answer"] is not None:
            try:
                answer = opener.open(row["answer"])
                yield from finished_tokens(row["attempt"], answer, after)
            except ContentErased:
                is_erased = True
            except CannotRead as error:
                unreadable(f"message:{self._generation_id}", error)
                raise
        # What was erased is awaited from nowhere. What was only never stored may stand in the token stream for a while.
        yield _ending(row, min(after, deltas) if is_erased else deltas, answer)


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


def finished_tokens(attempt: int, answer: Row, after: int) -> Iterator[Frame]:
    """The deltas of a finished answer that follow seq ``after``, as they were written, many to a frame."""
    written = pieces(
        answer["text"],
        answer["delta_lengths"],
        answer.get("reasoning", ""),
        answer.get("tool_calls", ()),
        answer.get("logprobs", ()),
    )
    for first in range(after, len(written), MOST_DELTAS):
        deltas = written[first : first + MOST_DELTAS]
        yield Frame(Kind.TOKEN, attempt, first + len(deltas), deltas)


def _ending(row: Row, seq: int, answer: Row) -> Frame:
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
        if answer.get("json_span") is not None:
            detail["json_span"] = answer["json_span"]
        if answer.get("stopped_by") is not None:
            detail["stopped_by"] = answer["stopped_by"]
        detail |= {name: answer[name] for name in ("sources", "source_notes") if answer.get(name)}
    if kind is Kind.FAILED:
        detail |= {"reason": row["reason"], "detail": row["detail"]}
    return Frame(kind, row["attempt"], seq, detail=detail)
