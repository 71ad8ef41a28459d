"""Reading the event log. That somebody read it goes into the log first; without that nothing is shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import orjson

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
    await _record(ports, principal, chosen, exported=False)
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
    await _record(ports, principal, chosen, exported=True)
    async with ports.database.tenant(principal.tenant_id) as session:
        newest = await sql.newest_event(session)
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


async def _record(ports: QueryPorts, principal: Principal, chosen: sql.EventFilter, *, exported: bool) -> None:
    envelope = Envelope.first(
        AuditRead(key_id=principal.key_id, filters=chosen.given(), exported=exported),
        id=new_id(),
        source=SOURCE,
        tenant_id=principal.tenant_id,
        actor=principal.actor,
    )
    await ports.publisher.publish(EVENTS, encode(envelope), key=str(principal.tenant_id))
