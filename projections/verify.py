"""Walks the record's hash chain and says where it is first broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from backplane.ports.database import Database, Row
from backplane.security.chain import BEGINNING, Head, next_hash
from event_schemas.codec import CannotDecode, decode
from projections.catalog import EVENT_LOG
from projections.comparison import Difference
from projections.event_log import MOST_BYTES, PAGE, Facts, Received, facts_of
from projections.reading_ahead import pages

_FACTS = (*Facts._fields, "tenant_id")
_columns = itemgetter(*_FACTS)


async def verify(database: Database, schema: str, progress: Callable[[float], None]) -> tuple[int, list[Difference]]:
    """Walk every tenant's chain; returns the number of lines that were read, and each tenant's first wrong line.

    A chain is judged up to the head that stands when we begin, so appending may go on. Raises DatabaseUnavailable.
    """
    async with database.system() as session:
        heads = await session.all(f"SELECT tenant_id, sequence, hash FROM {schema}.tenant_heads ORDER BY tenant_id")  # noqa: S608
    total = sum(head["sequence"] for head in heads) or 1
    read = 0
    wrong: list[Difference] = []
    for head in heads:
        tenant_id = head["tenant_id"]
        chain = Chain(tenant_id)
        to = Head(head["sequence"], head["hash"])
        async with pages(partial(_read, database, schema, tenant_id, to.sequence), 0, to.sequence) as ahead:
            async for page in ahead:
                chain.follow(page.rows, to.sequence)
                read += len(page.rows)
                progress(min(read / total, 1.0))
                if chain.fault is not None:
                    break
        fault = chain.fault or (None if chain.head == to else (to.sequence, "is not the line that the head names"))
        if fault is not None:
            wrong.append(_wrong(tenant_id, *fault))
    wrong.extend(await _beyond_heads(database, schema, {difference.key["tenant_id"] for difference in wrong}))
    return read, wrong


class Chain:
    """One tenant's lines as they are followed, in order, from the first."""

    def __init__(self, tenant_id: UUID) -> None:
        self._tenant_id = tenant_id
        self.head = BEGINNING
        self.fault: tuple[int, str] | None = None
        """The first wrong line's sequence, and what is wrong with it."""

    def follow(self, rows: list[Row], to: int) -> None:
        """Follow ``rows``, which are the next ones that are stored, until one is wrong. None means that the rest up
        to ``to`` is missing."""
        for row in rows:
            expected = self.head.sequence + 1
            what = "is missing" if row["sequence"] != expected else next(self._faults(row), None)
            if what is not None:
                self.fault = expected, what
                return
            self.head = Head(expected, row["hash"])
        if not rows and self.head.sequence < to:
            self.fault = self.head.sequence + 1, "is missing"

    def _faults(self, row: Row) -> Iterator[str]:
        raw = row["envelope"]
        try:
            if next_hash(self.head.hash, raw) != row["hash"]:
                yield "does not follow from the line before: its envelope or a hash was changed"
            received = Received(decode(raw), raw)
        except (ValueError, CannotDecode) as error:
            yield f"cannot be read: {error}"
            return
        facts = (*facts_of(received), received.envelope.tenantid)
        if facts != _columns(row):
            differing = [name for name, value in zip(_FACTS, facts, strict=True) if row[name] != value]
            yield f"differs from its own envelope in {', '.join(differing)}"


class _Page(NamedTuple):
    last: int
    rows: list[Row]


async def _read(database: Database, schema: str, tenant_id: UUID, to: int, after: int) -> _Page:
    async with database.system() as session:
        rows = await session.all(
            f"""SELECT tenant_id, sequence, id, type, subject, actor, "time", correlation_id, envelope, hash FROM (
                  SELECT *, sum(octet_length(envelope)) OVER wide AS bytes, row_number() OVER wide AS place
                  FROM (SELECT * FROM {schema}.event_log
                        WHERE tenant_id = :tenant_id AND sequence > :after AND sequence <= :to
                        ORDER BY sequence LIMIT :page) l
                  WINDOW wide AS (ORDER BY sequence)) lines
                WHERE place = 1 OR bytes <= :most_bytes ORDER BY sequence""",  # noqa: S608
            tenant_id=tenant_id,
            after=after,
            to=to,
            page=PAGE,
            most_bytes=MOST_BYTES,
        )
    return _Page(rows[-1]["sequence"] if rows else to, rows)


async def _beyond_heads(database: Database, schema: str, known: set[str]) -> list[Difference]:
    async with database.system() as session:
        rows = await session.all(
            f"""SELECT l.tenant_id, min(l.sequence) AS sequence
                FROM {schema}.event_log l LEFT JOIN {schema}.tenant_heads h USING (tenant_id)
                WHERE l.sequence > coalesce(h.sequence, 0) OR l.sequence < 1
                GROUP BY l.tenant_id ORDER BY l.tenant_id"""  # noqa: S608
        )
    return [
        _wrong(row["tenant_id"], row["sequence"], "stands outside the tenant's chain")
        for row in rows
        if str(row["tenant_id"]) not in known
    ]


def _wrong(tenant_id: UUID, sequence: int, what: str) -> Difference:
    return Difference(EVENT_LOG, {"tenant_id": str(tenant_id), "sequence": str(sequence)}, what)
