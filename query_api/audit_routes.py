"""The endpoints of auditors: proofs of the log, and the chain of one request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import not_found, responses, unavailable
from query_api import audit_views, parameters, proof, sql
from query_api.audit_export import AuditExport, NothingSigned
from query_api.cursors import parse_proof, parse_sequence
from query_api.event_log import record_read
from query_api.service import QueryPorts
from query_api.trace import Trace

NDJSON = "application/x-ndjson"

_TRACE_PAGE = 500

router = APIRouter(prefix="/v1/audit", tags=["queries"])

Auditor = Annotated[Principal, Depends(requires("events.read"))]


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports


@router.get(
    "/verify",
    response_model=audit_views.ProofView,
    summary="Whether the live log verifies",
    responses=responses(401, 403, 422, 503),
)
async def verify_log(
    request: Request,
    principal: Auditor,
    cursor: parameters.ProofCursor = None,
    limit: Annotated[int, Query(ge=1, le=20_000, description="most lines that are looked at")] = 5000,
) -> audit_views.ProofView:
    """Walks the hash chain and holds checkpoints against it, a part of the log a call: go on with `next_cursor`.

    What is verified is what stands here now. Only an export, verified elsewhere with a public key and checkpoints that
    were kept elsewhere, proves that it is what stood here before.
    """
    ports = _ports(request)
    begin = parse_proof(cursor) if cursor else None
    filters = {} if begin is None else {"after": str(begin.sequence)}
    await record_read(ports.publisher, principal.tenant_id, principal.key_id, principal.actor, filters, what="proof")
    found = await proof.prove(ports.database, principal.tenant_id, begin, limit=limit)
    return audit_views.ProofView.of(found)


@router.get(
    "/checkpoints",
    response_model=audit_views.CheckpointPage,
    summary="Signed checkpoints of the log",
    responses=responses(401, 403, 422, 503),
)
async def list_checkpoints(
    request: Request,
    principal: Auditor,
    cursor: parameters.EventPageCursor = None,
    limit: Annotated[int, Query(ge=1, le=500, description="most checkpoints of a page")] = 100,
) -> audit_views.CheckpointPage:
    """Who keeps one can show later that the log up to that line is still the same."""
    ports = _ports(request)
    after = parse_sequence(cursor) if cursor else 0
    await record_read(ports.publisher, principal.tenant_id, principal.key_id, principal.actor, {}, what="checkpoints")
    async with ports.database.tenant(principal.tenant_id) as session:
        pruned = await sql.beginning(session)
        found = await sql.checkpoints(session, after=after, limit=limit + 1)
    page = found[:limit]
    return audit_views.CheckpointPage.of(pruned, page, str(page[-1].sequence) if len(found) > limit else None)


@router.get(
    "/export",
    response_class=StreamingResponse,
    summary="The log with its proofs",
    responses={
        200: {
            "description": "NDJSON: a header, then lines of the log, each checkpoint after the line that it signs",
            "content": {NDJSON: {"schema": {"type": "string"}, "example": '{"parley_export":1,"to":1042}\n'}},
        },
        **responses(401, 403, 422, 503),
    },
)
async def export_log(request: Request, principal: Auditor) -> StreamingResponse:
    """Up to the newest line that is signed. `parley audit verify` checks it, with a public key alone."""
    ports = _ports(request)
    await record_read(ports.publisher, principal.tenant_id, principal.key_id, principal.actor, {}, exported=True)
    try:
        export = await AuditExport.begin(ports.database, principal.tenant_id)
    except NothingSigned as error:
        raise unavailable("projections", str(error)) from None
    return StreamingResponse(_lines(export), media_type=NDJSON)


async def _lines(export: AuditExport) -> AsyncGenerator[bytes, None]:
    async for _, lines in export.lines():
        yield lines


@router.get(
    "/trace/{correlation_id}",
    response_model=audit_views.TraceView,
    summary="One request, through cause and effect",
    responses=responses(401, 403, 404, 422, 503),
)
async def trace_request(
    request: Request,
    principal: Auditor,
    correlation_id: Annotated[UUID, Path(description="id of the command that began the chain, as its events have it")],
) -> audit_views.TraceView:
    """From the command over attempts and tokens to the end, with times. What anybody wrote is not in it."""
    ports = _ports(request)
    chosen = sql.EventFilter(correlation_id=correlation_id)
    await record_read(
        ports.publisher, principal.tenant_id, principal.key_id, principal.actor, chosen.given(), what="trace"
    )
    trace, after = Trace(), 0
    while True:
        async with ports.database.tenant(principal.tenant_id) as session:
            rows = await sql.events(session, chosen, after=after, up_to=None, limit=_TRACE_PAGE)
        trace.take(rows)
        if len(rows) < _TRACE_PAGE:
            break
        after = rows[-1]["sequence"]
    steps = trace.steps()
    if not steps:
        raise not_found("chain")
    return audit_views.TraceView.of(correlation_id, steps)
