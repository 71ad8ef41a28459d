"""Exports and checkpoints of the record at the command line, through the query API's own readers."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from typing import BinaryIO
from uuid import UUID

import orjson

from backplane.ports.database import Database
from backplane.settings import Settings
from backplane.wiring.embedded import owner_database, role_database
from backplane.wiring.operations import operator_bus
from cli import tenancy
from cli.board import Board
from cli.failures import TryAgain
from command_api.tenancy import OPERATOR
from event_schemas.envelope import PLATFORM
from query_api import sql
from query_api.audit_export import AuditExport, NothingSigned, PrunedMeanwhile
from query_api.event_log import record_read

_PAGE = 1000

_NO_KEY = UUID(int=0)


async def write(settings: Settings, tenant: str, to: BinaryIO) -> int:
    """Write an export of the tenant's record; returns the sequence of its last line.

    That it was read is in the record. Raises CommandError, DatabaseUnavailable, BusError.
    """
    tenant_id = await _tenant(settings, tenant)
    database = role_database(settings, "query_api")
    try:
        export = await AuditExport.begin(database, tenant_id)
        async with operator_bus(settings) as bus:
            await record_read(bus, tenant_id, _NO_KEY, OPERATOR, {}, exported=True)
        begin, end = export.after, export.header.to
        with Board(plain_progress=False, on=sys.stderr) as board:
            async for reached, lines in export.lines():
                to.write(lines)
                board.progress(tenant, "exporting", (reached - begin) / ((end - begin) or 1))
        to.flush()
    except (NothingSigned, PrunedMeanwhile) as error:
        raise TryAgain(str(error)) from None
    finally:
        await database.close()
    return end


async def checkpoints(settings: Settings, tenant: str | None) -> AsyncGenerator[str, None]:
    """A tenant's checkpoints, or those of all, each as a line of JSON. Raises CommandError, DatabaseUnavailable.

    They tell nothing of what was written, so reading them so is on nobody's record.
    """
    wanted = await _everybody(settings) if tenant is None else [await _tenant(settings, tenant)]
    database = role_database(settings, "query_api")
    try:
        for tenant_id in wanted:
            async for line in _of(database, tenant_id):
                yield line
    finally:
        await database.close()


async def _tenant(settings: Settings, wanted: str) -> UUID:
    # The platform's own log has no tenant among the others.
    return PLATFORM if wanted == str(PLATFORM) else await tenancy.find_tenant(settings, wanted)


async def _everybody(settings: Settings) -> list[UUID]:
    database = owner_database(settings)
    try:
        async with database.system() as session:
            rows = await session.all("SELECT tenant_id FROM read_models.tenant_heads ORDER BY tenant_id")
    finally:
        await database.close()
    return [row["tenant_id"] for row in rows]


async def _of(database: Database, tenant_id: UUID) -> AsyncGenerator[str, None]:
    after = 0
    while True:
        async with database.tenant(tenant_id) as session:
            page = await sql.checkpoints(session, after=after, limit=_PAGE)
        for one in page:
            yield orjson.dumps(one.json()).decode()
        if len(page) < _PAGE:
            return
        after = page[-1].sequence
