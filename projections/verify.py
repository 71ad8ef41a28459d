"""Walks the record's hash chain and says where it is first broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from backplane.ports.database import Database, Row, Session
from backplane.security.chain import BEGINNING, Broken, Head, follow
from backplane.security.checkpoint import Checkpoint, vouch
from event_schemas.codec import CannotDecode, decode
from projections import checkpoints
from projections.catalog import EVENT_LOG
from projections.comparison import Difference
from projections.event_log import MOST_BYTES, PAGE, Facts, Received, facts_of
from projections.pruning import PRUNING
from projections.reading_ahead import pages

_FACTS = (*Facts._fields, "tenant_id")
_columns = itemgetter(*_FACTS)


async def verify(database: Database, schema: str, progress: Callable[[float], None]) -> tuple[int, list[Difference]]:
    """Walk every tenant's chain; returns the number of lines that were read, and each tenant's first wrong line.

    A chain is judged up to the head that stands when we begin, so appending may go on. One that was pruned begins
    where that is signed. Checkpoints are held against their lines, each under the key that it names: whether that is
    the right key is for an export to prove. Raises DatabaseUnavailable.
    """
    async with database.system() as holding:
        await holding.execute("SELECT pg_advisory_xact_lock_shared(:pruning)", pruning=PRUNING)
        heads = await holding.all(f"SELECT tenant_id, sequence, hash FROM {schema}.tenant_heads ORDER BY tenant_id")  # noqa: S608
        beginnings = await checkpoints.beginnings(holding, schema)
        total = sum(
            head["sequence"] - (beginnings[tenant].sequence if (tenant := head["tenant_id"]) in beginnings else 0)
            for head in heads
        )
        read = 0
        wrong: list[Difference] = []
        for head in heads:
            tenant_id = head["tenant_id"]
            chain = Chain(tenant_id, beginnings.get(tenant_id))
            to = Head(head["sequence"], head["hash"])
            reading = partial(_read, database, schema, tenant_id, to.sequence)
            async with pages(reading, chain.head.sequence, to.sequence) as ahead:
                async for page in ahead:
                    if chain.fault is None:
                        chain.follow(page.rows, to.sequence, page.signed)
                    read += len(page.rows)
                    progress(min(read / (total or 1), 1.0))
                    if chain.fault is not None:
                        break
            fault = chain.fault or (None if chain.head == to else (to.sequence, "is not the line that the head names"))
            if fault is not None:
                wrong.append(_wrong(tenant_id, *fault))
        wrong.extend(await _outside(holding, schema, {difference.key["tenant_id"] for difference in wrong}))
    return read, wrong


class Chain:
    """One tenant's lines as they are followed, in order, from the first that is kept."""

    def __init__(self, tenant_id: UUID, beginning: Checkpoint | None = None) -> None:
        self._tenant_id = tenant_id
        self.head = BEGINNING if beginning is None else beginning.head
        self.fault: tuple[int, str] | None = None
        """The first wrong line's sequence, and what is wrong with it."""
        if beginning is not None:
            self._vouched([beginning])

    def follow(self, rows: Sequence[Row], to: int, signed: Mapping[int, Sequence[Checkpoint]]) -> None:
        """Follow ``rows``, which are the next ones that are stored, until one is wrong. None means that the rest up
        to ``to`` is missing. ``signed`` are the checkpoints of these lines by sequence."""
        for row in rows:
            try:
                self.head = follow(self.head, row["sequence"], row["hash"], row["envelope"])
            except Broken as broken:
                self.fault = broken.sequence, str(broken)
                return
            what = next(self._faults(row), None)
            if what is not None:
                self.fault = row["sequence"], what
                return
            if not self._vouched(signed.get(row["sequence"], ())):
                return
        if not rows and self.head.sequence < to:
            self.fault = self.head.sequence + 1, "is missing"

    def _vouched(self, signed: Sequence[Checkpoint]) -> bool:
        try:
            for each in signed:
                vouch(each, self.head, (each.key,))
        except Broken as broken:
            self.fault = broken.sequence, str(broken)
            return False
        return True

    def _faults(self, row: Row) -> Iterator[str]:
        raw = row["envelope"]
        try:
            received = Received(decode(raw), raw)
        except CannotDecode as error:
            yield f"cannot be read: {error}"
            return
        facts = (*facts_of(received), received.envelope.tenantid)
        if facts != _columns(row):
            differing = [name for name, value in zip(_FACTS, facts, strict=True) if row[name] != value]
            yield f"differs from its own envelope in {', '.join(differing)}"


class _Page(NamedTuple):
    last: int
    rows: list[Row]
    signed: dict[int, list[Checkpoint]]


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
        last = rows[-1]["sequence"] if rows else to
        return _Page(last, rows, await checkpoints.between(session, tenant_id, after, last, schema))


async def _outside(session: Session, schema: str, known: set[str]) -> list[Difference]:
    """Lines outside of their tenant's chain, and checkpoints of lines that are gone."""
    rows = await session.all(
        f"""SELECT l.tenant_id, min(l.sequence) AS sequence, 'stands outside the tenant''s chain' AS what
            FROM {schema}.event_log l LEFT JOIN {schema}.tenant_heads h USING (tenant_id)
            LEFT JOIN (SELECT tenant_id, max(sequence) AS pruned FROM {schema}.checkpoints WHERE kind = 'pruned'
                       GROUP BY tenant_id) b USING (tenant_id)
            WHERE l.sequence > coalesce(h.sequence, 0) OR l.sequence <= coalesce(b.pruned, 0)
            GROUP BY l.tenant_id
            UNION ALL
            SELECT c.tenant_id, min(c.sequence), 'is not there, and a checkpoint signs it: the record was cut off'
            FROM {schema}.checkpoints c LEFT JOIN {schema}.tenant_heads h USING (tenant_id)
            WHERE c.sequence > coalesce(h.sequence, 0)
            GROUP BY c.tenant_id
            ORDER BY tenant_id, sequence"""  # noqa: S608
    )
    first: dict[str, Difference] = {}
    for row in rows:
        first.setdefault(str(row["tenant_id"]), _wrong(row["tenant_id"], row["sequence"], row["what"]))
    return [difference for tenant_id, difference in first.items() if tenant_id not in known]


def _wrong(tenant_id: UUID, sequence: int, what: str) -> Difference:
    return Difference(EVENT_LOG, {"tenant_id": str(tenant_id), "sequence": str(sequence)}, what)
