"""Responses read back."""

from __future__ import annotations

from uuid import UUID

from fastapi import Request

import query_api.service
from backplane.ports.database import Row
from backplane.security.principal import Principal
from backplane.web.problems import Problem, not_found
from gateway.problems import invalid
from gateway.responses import response
from gateway.responses.output import Json
from gateway.responses.response import Response, id_in
from query_api import readers
from query_api.answers import answers

ENDED = ("completed", "failed", "cancelled")
"""Statuses of generations that are final."""


def ports_of(request: Request) -> query_api.service.QueryPorts:
    ports: query_api.service.QueryPorts = request.app.state.query
    return ports


async def row_of(request: Request, principal: Principal, response_id: str) -> Row:
    """The generation that a response is, as `readers.generation` gives it. Raises Problem, and as that one."""
    row = await _row(request, principal, response_id)
    if row["created_at"] is None or row["status"] not in ENDED:
        # Its beginning is known before its prompt, and its end may have been told to whoever asks now.
        await settle(request)
        row = await _row(request, principal, response_id)
    if row["purpose"] != "answer":
        raise not_found("response")
    return row


async def _row(request: Request, principal: Principal, response_id: str) -> Row:
    try:
        generation_id = id_in(response_id, "resp")
        with answers():
            return await readers.generation(ports_of(request), principal, generation_id)
    except (ValueError, Problem) as error:
        if isinstance(error, Problem) and error.status != 404:
            raise
        raise not_found("response") from None


async def settle(request: Request) -> bool:
    """Whether the read models have all that was told before this request, within their deadline."""
    ports = ports_of(request)
    return await ports.freshness.caught_up(ports.read_your_writes_s)


async def previous_of(request: Request, principal: Principal, row: Row) -> UUID | None:
    return await readers.answer_before(ports_of(request), principal, row["id"])


async def of_row(request: Request, principal: Principal, row: Row) -> Response:
    return Response.read(row, await previous_of(request, principal, row))


async def found(request: Request, principal: Principal, row: Row) -> Json:
    """The response as it stands."""
    return response.found(row, await previous_of(request, principal, row))


async def conversation_of(request: Request, principal: Principal, row: Row) -> Row:
    """Its conversation with the messages. Raises Problem, and as `readers.conversation`."""
    with answers():
        return await readers.conversation(ports_of(request), principal, row["conversation_id"])


async def referred(request: Request, principal: Principal, ids: list[str]) -> dict[str, Json]:
    """Output items by their ids. Raises Problem where one is none of the caller's."""
    items: dict[str, Json] = {}
    for id in ids:
        if id in items:
            continue
        response_id = id.partition("_")[2].partition("_")[0]
        try:
            row = await row_of(request, principal, response_id)
            items |= {one["id"]: one for one in response.found(row, None)["output"]}
        except Problem as problem:
            if problem.status != 404:
                raise
        if id not in items:
            raise invalid("input", f"There is no output item {id[:80]!r} to refer to.")
    return items
