"""What may be read of batches, by whom. No HTTP here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from backplane.ports.database import Row
from backplane.security.principal import Principal
from query_api import batch_sql, opening
from query_api.batch_sql import Ended
from query_api.chat_completion import chat_completion
from query_api.freshness import found
from query_api.opening import Opener
from query_api.service import QueryPorts
from query_api.sql import Eyes

_PAGE = 50

Line = dict[str, Any]

_ERASED: Line = {"custom_id": None, "message": "What was written of it was erased."}


async def batch(ports: QueryPorts, principal: Principal, batch_id: UUID) -> Row:
    """Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable."""

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await batch_sql.batch(session, Eyes.of(principal), batch_id)

    return await _opened(ports, principal, await found(ports, "batch", read))


@dataclass(frozen=True, slots=True)
class BatchPage:
    batches: list[Row]
    next: UUID | None


async def batches(ports: QueryPorts, principal: Principal, *, before: UUID | None, limit: int) -> BatchPage:
    """Newest first. Raises DatabaseUnavailable, WrappingUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = await batch_sql.batches(session, Eyes.of(principal), before=before, limit=limit + 1)
    shown = [await _opened(ports, principal, row) for row in rows[:limit]]
    return BatchPage(shown, shown[-1]["id"] if len(rows) > limit else None)


async def results(ports: QueryPorts, principal: Principal, batch_id: UUID) -> AsyncGenerator[bytes, None]:
    """Lines that were answered, as JSON Lines, as far as they have ended by now.

    Raises as ``batch`` at once; DatabaseUnavailable and WrappingUnavailable also in the middle.
    """
    await batch(ports, principal, batch_id)
    return _ended(ports, principal, batch_id, "completed")


async def errors(ports: QueryPorts, principal: Principal, batch_id: UUID) -> AsyncGenerator[bytes, None]:
    """Lines that were not answered, and will not be. Raises as ``results``."""
    row = await batch(ports, principal, batch_id)
    return _without_answer(ports, principal, row)


async def _opened(ports: QueryPorts, principal: Principal, row: Row) -> Row:
    opener = await Opener.of(ports.data_keys, principal.tenant_id, row["id"], row["wrapped"])
    content, erased = opener.show(row["content"], f"batch:{row['id']}")
    return {**row, "metadata": content and content["metadata"], "erased": erased}


async def _ended(ports: QueryPorts, principal: Principal, batch_id: UUID, how: Ended) -> AsyncGenerator[bytes, None]:
    after = 0
    while True:
        async with ports.database.tenant(principal.tenant_id) as session:
            rows = await batch_sql.lines(session, batch_id, how, after=after, limit=_PAGE)
        told = []
        for row in rows:
            opener = await Opener.of(ports.data_keys, principal.tenant_id, row["conversation_id"], row["wrapped"])
            told.append(orjson.dumps(_line(opening.generation(row, opener), batch_id)) + b"\n")
        if told:
            yield b"".join(told)
            after = rows[-1]["batch_line"]
        if len(rows) < _PAGE:
            return


async def _without_answer(ports: QueryPorts, principal: Principal, of_batch: Row) -> AsyncGenerator[bytes, None]:
    batch_id = of_batch["id"]
    async for some in _ended(ports, principal, batch_id, "otherwise"):
        yield some
    opener = await Opener.of(ports.data_keys, principal.tenant_id, batch_id, of_batch["wrapped"])
    after = 0
    while True:
        async with ports.database.tenant(principal.tenant_id) as session:
            rows = await batch_sql.failures(session, batch_id, after=after, limit=_PAGE)
        for row in rows:
            content, _ = opener.show(row["content"], f"batch:{batch_id}")
            said = [_ERASED] * len(row["failed"]) if content is None else content["lines"]
            yield b"".join(
                orjson.dumps(_error(f"{batch_id}-{one['line']}", why["custom_id"], one["code"], why["message"])) + b"\n"
                for one, why in zip(row["failed"], said, strict=True)
            )
            after = row["first_line"]
        if len(rows) < _PAGE:
            return


def _line(row: Row, batch_id: UUID) -> Line:
    """A line of a batch's output as OpenAI's have them."""
    id, custom_id = f"{batch_id}-{row['batch_line']}", row["custom_id"]
    if row["status"] == "completed" and not row["erased"] and row["content"] is not None:
        response = {"status_code": 200, "request_id": str(row["id"]), "body": chat_completion(row)}
        return {"id": id, "custom_id": custom_id, "response": response, "error": None}
    if row["status"] == "completed":
        return _error(id, custom_id, "content_erased", "What was written here was erased.")
    return _error(id, custom_id, row["reason"] or "cancelled", row["detail"] or "It was cancelled.")


def _error(id: str, custom_id: str | None, code: str, message: str | None) -> Line:
    return {"id": id, "custom_id": custom_id, "response": None, "error": {"code": code, "message": message}}
