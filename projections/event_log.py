"""The record: every envelope of a tenant, once, in an order that is given here and nowhere else.

Each line's hash follows from the hash of the line before (``backplane.security.chain``). So one who holds a tenant's
last hash can prove that no line was changed, removed or put in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson

from backplane.ports.database import Session
from backplane.security.chain import GENESIS, Head, next_hash
from event_schemas.codec import AnyEnvelope
from event_schemas.registry import split
from projections.text import storable

PAGE = 4000
"""Lines of the record that are read at a time, at most."""

MOST_BYTES = 16 * 1024 * 1024
"""Bytes of envelopes that are handled at a time, at most; one larger envelope aside."""


class Received(NamedTuple):
    """An envelope, and the very bytes it was decoded from."""

    envelope: AnyEnvelope
    raw: bytes


class Facts(NamedTuple):
    """What the record says of an envelope in columns of its own, so that it can be searched."""

    id: UUID
    type: str
    subject: str
    actor: str
    time: datetime
    correlation_id: UUID


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the record."""

    tenant_id: UUID
    sequence: int
    facts: Facts
    envelope: bytes
    hash: bytes


def facts_of(received: Received) -> Facts:
    """The type is the one that was on the bus, which an upcast envelope no longer says."""
    envelope = received.envelope
    first_version = split(envelope.type)[1] == 1
    return Facts(
        id=envelope.id,
        type=envelope.type if first_version else orjson.loads(received.raw)["type"],
        subject=storable(envelope.subject),
        actor=storable(envelope.actor),
        time=envelope.time,
        correlation_id=envelope.correlationid,
    )


def lines(received: Sequence[Received], heads: dict[UUID, Head]) -> Iterator[Line]:
    """The lines that ``received`` become after ``heads``, which move on."""
    for each in received:
        tenant_id = each.envelope.tenantid
        head = heads[tenant_id]
        head = heads[tenant_id] = Head(head.sequence + 1, next_hash(head.hash, each.raw))
        yield Line(tenant_id, head.sequence, facts_of(each), each.raw, head.hash)


async def append(session: Session, received: Sequence[Received], schema: str) -> list[AnyEnvelope]:
    """Write what is new to the record, within the transaction of ``session``; return the new envelopes, in order.

    Locks the head rows of the tenants until the transaction ends: who holds one is the only writer of that tenant.
    """
    if not received:
        return []
    heads = await _lock(session, sorted({each.envelope.tenantid for each in received}), schema)
    fresh = await _fresh(session, received, schema)
    if fresh:
        await _insert(session, list(lines(fresh, heads)), schema)
        await _move_heads(session, {each.envelope.tenantid: heads[each.envelope.tenantid] for each in fresh}, schema)
    return [each.envelope for each in fresh]


async def _lock(session: Session, tenants: Collection[UUID], schema: str) -> dict[UUID, Head]:
    # All in one order, so that two projectors never wait for each other.
    await session.execute(
        f"""INSERT INTO {schema}.tenant_heads (tenant_id, sequence, hash)
            SELECT tenant_id, 0, :genesis FROM unnest(CAST(:tenants AS uuid[])) AS t(tenant_id) ORDER BY tenant_id
            ON CONFLICT (tenant_id) DO NOTHING""",  # noqa: S608
        tenants=tenants,
        genesis=GENESIS,
    )
    rows = await session.all(
        f"""SELECT tenant_id, sequence, hash FROM {schema}.tenant_heads
            WHERE tenant_id = ANY(CAST(:tenants AS uuid[])) ORDER BY tenant_id FOR UPDATE""",  # noqa: S608
        tenants=tenants,
    )
    return {row["tenant_id"]: Head(row["sequence"], row["hash"]) for row in rows}


async def _fresh(session: Session, received: Sequence[Received], schema: str) -> list[Received]:
    by_id: dict[tuple[UUID, UUID], Received] = {}
    for each in received:
        by_id.setdefault((each.envelope.tenantid, each.envelope.id), each)
    known = await session.all(
        f"""SELECT l.tenant_id, l.id FROM {schema}.event_log l
            JOIN unnest(CAST(:tenants AS uuid[]), CAST(:ids AS uuid[])) AS r(tenant_id, id) USING (tenant_id, id)""",  # noqa: S608
        tenants=[tenant_id for tenant_id, _ in by_id],
        ids=[event_id for _, event_id in by_id],
    )
    for row in known:
        del by_id[row["tenant_id"], row["id"]]
    return list(by_id.values())


_INSERTED = {
    "tenant_id": "uuid",
    "sequence": "bigint",
    "id": "uuid",
    "type": "text",
    "subject": "text",
    "actor": "text",
    "time": "timestamptz",
    "correlation_id": "uuid",
    "envelope": "bytea",
    "hash": "bytea",
}


async def _insert(session: Session, new: list[Line], schema: str) -> None:
    arrays = ", ".join(f"CAST(:{column}s AS {kind}[])" for column, kind in _INSERTED.items())
    values = ((line.tenant_id, line.sequence, *line.facts, line.envelope, line.hash) for line in new)
    columns = zip(_INSERTED, zip(*values, strict=True), strict=True)
    await session.execute(
        f"INSERT INTO {schema}.event_log ({', '.join(_INSERTED)}) SELECT * FROM unnest({arrays})",  # noqa: S608
        **{f"{column}s": list(of_column) for column, of_column in columns},
    )


async def _move_heads(session: Session, heads: dict[UUID, Head], schema: str) -> None:
    await session.execute(
        f"""UPDATE {schema}.tenant_heads t SET sequence = h.sequence, hash = h.hash
            FROM unnest(CAST(:tenants AS uuid[]), CAST(:sequences AS bigint[]), CAST(:hashes AS bytea[]))
              AS h(tenant_id, sequence, hash)
            WHERE t.tenant_id = h.tenant_id""",  # noqa: S608
        tenants=list(heads),
        sequences=[head.sequence for head in heads.values()],
        hashes=[head.hash for head in heads.values()],
    )
