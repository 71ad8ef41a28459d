"""The query API's endpoints of usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import responses
from query_api import parameters, usage, views
from query_api.service import QueryPorts
from query_api.sql import Grouping, UsageFilter

CSV = "text/csv"
_SPAN = timedelta(days=30)
_CSV_EXAMPLE = """\
day,generations,attempts,estimated_attempts,input_tokens,cached_input_tokens,output_tokens,reasoning_tokens,cost_usd,\
attempts_of_unknown_cost,embeddings
2026-03-01,12,13,1,2400,0,9600,0,0.42,0,0
"""
_ATTEMPTS_EXAMPLE = """\
at,generation_id,attempt,user_id,key_id,model,pool,backend,served_model,paid_by,persona,source,input_tokens,\
cached_input_tokens,output_tokens,reasoning_tokens,cost_usd,inputs
2026-03-01T12:00:00.123456+00:00,01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11,1,,01990f6e-0000-7000-8000-000000000002,fast,\
cloud,openai,gpt-4.1-nano,tenant,translator,provider,24,0,128,0,0.0000536,
"""

router = APIRouter(prefix="/v1", tags=["queries"])

Reader = Annotated[Principal, Depends(requires("usage.read"))]


def _chosen(
    since: parameters.From = None,
    to: parameters.To = None,
    user_id: parameters.OfUser = None,
    key_id: parameters.OfKey = None,
    model: parameters.OfModel = None,
    persona: parameters.OfPersona = None,
) -> UsageFilter:
    until = to or datetime.now(UTC)
    try:
        begin = since or until - _SPAN
    except OverflowError:
        raise parameters.invalid("query", "to", "is before there was time") from None
    if begin >= until:
        raise parameters.invalid("query", "from", "must be before `to`")
    return UsageFilter(begin, until, user_id, key_id, model, persona)


Chosen = Annotated[UsageFilter, Depends(_chosen)]


@router.get(
    "/usage",
    response_class=Response,
    summary="Tokens and money used",
    responses={
        200: {
            "model": views.UsageReport,
            "description": "Sums by what was asked for",
            "content": {CSV: {"schema": {"type": "string"}, "example": _CSV_EXAMPLE}},
        },
        **responses(401, 403, 422, 503),
    },
)
async def get_usage(
    request: Request,
    principal: Reader,
    chosen: Chosen,
    group_by: Annotated[Grouping, Query(description="what the sums are by; days are in UTC")] = "day",
    format: Annotated[Literal["json", "csv"] | None, Query(description=f"`csv`: the same as `Accept: {CSV}`")] = None,
) -> Response:
    """What attempts used that ended in a span of time. A member sees its own; an admin that of the whole tenant.

    In CSV a cell that a spreadsheet would run as a formula begins with an apostrophe.
    """
    groups = await usage.groups(_ports(request), principal, chosen, group_by)
    if format == "csv" or (format is None and CSV in request.headers.get("accept", "")):
        return Response(usage.groups_as_csv(groups, group_by), media_type=CSV)
    report = views.UsageReport.model_validate(
        {
            "from": chosen.since,
            "to": chosen.until,
            "group_by": group_by,
            "groups": [views.UsageGroup.of(group) for group in groups],
        }
    )
    return Response(report.model_dump_json(by_alias=True), media_type="application/json")


@router.get(
    "/usage/attempts",
    response_class=StreamingResponse,
    summary="Every attempt and what it used, as CSV",
    responses={
        200: {
            "description": "A line for each attempt, oldest first, streamed",
            "content": {CSV: {"schema": {"type": "string"}, "example": _ATTEMPTS_EXAMPLE}},
        },
        **responses(401, 403, 422, 503),
    },
)
async def get_attempts(request: Request, principal: Reader, chosen: Chosen) -> StreamingResponse:
    """What `GET /v1/usage` sums. `paid_by` is `tenant` where a provider key of its own was asked with, else `platform`;
    empty where nobody knows. `source` tells counted tokens (`provider`) from estimated ones. A
    request for embeddings is one attempt, with the number of its texts as `inputs`."""
    lines = usage.attempts_as_csv(_ports(request), principal, chosen)
    return StreamingResponse(lines, media_type=CSV)


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports
