"""Reading the event log. That somebody read it goes into the log first; without that nothing is shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import orjson

from backplane.ports.bus import Publisher
from backplane.ports.database import Row
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from event_schemas.codec import encode
from event_schemas.control_plane import AuditRead
from event_schemas.envelope import Envelope
from event_schemas.topics import EVENTS
from query_api import sql
from query_api.service import QueryPorts

SOURCE = "/parley/query_api"

_EXPORT_PAGE = 500


@dataclass(frozen=True, slots=True)
class EventPage:
    lines: list[Row]
    next: int | None


async def page(
    ports: QueryPorts, principal: Principal, chosen: sql.EventFilter, *, after: int, limit: int
) -> EventPage:
    """Raises BusError (the read cannot be recorded), DatabaseUnavailable."""
    await record_read(ports.publisher, principal.tenant_id, principal.key_id, principal.actor, chosen.given())
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = list(await sql.events(session, chosen, after=after, up_to=None, limit=limit + 1))
    lines = rows[:limit]
    return EventPage(lines, lines[-1]["sequence"] if len(rows) > limit else None)


async def export(
    ports: QueryPorts, principal: Principal, chosen: sql.EventFilter, *, after: int
) -> AsyncGenerator[bytes, None]:
    """All lines up to the newest one of this moment, as NDJSON, some hundred at a time.

    Raises BusError (the read cannot be recorded) and DatabaseUnavailable at once; the latter also in the middle.
    """
    await record_read(
        ports.publisher, principal.tenant_id, principal.key_id, principal.actor, chosen.given(), exported=True
    )
    async with ports.database.tenant(principal.tenant_id) as session:
        newest = (await sql.newest_event(session)).sequence
    return _exported(ports, principal, chosen, after, newest)


async def _exported(
    ports: QueryPorts, principal: Principal, chosen: sql.EventFilter, after: int, newest: int
) -> AsyncGenerator[bytes, None]:
    while True:
        async with ports.database.tenant(principal.tenant_id) as session:
            rows = await sql.events(session, chosen, after=after, up_to=newest, limit=_EXPORT_PAGE)
        if rows:
            yield b"".join(orjson.dumps(line(row)) + b"\n" for row in rows)
            after = rows[-1]["sequence"]
        if len(rows) < _EXPORT_PAGE:
            return


def line(row: Row) -> Row:
    """As it is shown. The envelope's bytes stay as they came."""
    return {
        "sequence": row["sequence"],
        "hash": bytes(row["hash"]).hex(),
        "event": orjson.Fragment(bytes(row["envelope"])),
    }


async def record_read(
    publisher: Publisher,
    tenant_id: UUID,
    key_id: UUID,
    actor: str,
    filters: dict[str, str],
    *,
    exported: bool = False,
    what: Literal["events", "proof", "checkpoints", "trace"] = "events",
) -> None:
    """Put into a tenant's log that ``actor`` reads it, before anything is shown. Raises BusError."""
    envelope = Envelope.first(
        AuditRead(key_id=key_id, filters=filters, exported=exported, what=what),
        id=new_id(),
        source=SOURCE,
        tenant_id=tenant_id,
        actor=actor,
    )
    await publisher.publish(EVENTS, encode(envelope), key=str(tenant_id))
