"""The query API's endpoints."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from backplane.ports.token_stream import Cursor
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.event_stream import EventStream
from backplane.web.problems import responses
from query_api import audit_routes, event_log, parameters, people_routes, raw_json, readers, sse, views
from query_api.answers import answers
from query_api.assembly import Step
from query_api.cursors import ConversationCursor, parse_sequence
from query_api.service import QueryPorts
from query_api.sql import EventFilter

NDJSON = "application/x-ndjson"

_STREAM_EXAMPLE = """\
id: 1-0
event: started
data: {"attempt":1,"model":"gemma-3-270m"}

id: 1-2
event: token
data: {"text":"Hello there","seq":2,"attempt":1}

id: 1-2
event: completed
data: {"model":"gemma-3-270m","usage":{"input_tokens":5,"output_tokens":2,"source":"provider"},"finish_reason":"stop"}

"""

queries = APIRouter(prefix="/v1", tags=["queries"])

Reader = Annotated[Principal, Depends(requires("conversations.use"))]
Admin = Annotated[Principal, Depends(requires("provider_keys.manage"))]
Auditor = Annotated[Principal, Depends(requires("events.read"))]


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports


@queries.get(
    "/generations/{generation_id}",
    response_model=views.GenerationView,
    summary="One generation",
    responses=responses(401, 403, 404, 422, 503),
)
async def get_generation(
    request: Request, principal: Reader, generation_id: parameters.GenerationId
) -> views.GenerationView | Response:
    """Right after its 202 it is there already, as `queued`; `queue` tells where it stands while it waits."""
    with answers():
        row = await readers.generation(_ports(request), principal, generation_id)
    return raw_json.generation(views.GenerationView.of(row))


@queries.get(
    "/generations/{generation_id}/stream",
    response_class=EventStream,
    summary="Follow a generation",
    responses={
        200: {
            "description": "Server-Sent Events until the generation has ended",
            "content": {"text/event-stream": {"example": _STREAM_EXAMPLE}},
        },
        **responses(401, 403, 404, 422, 503),
    },
)
async def stream_generation(
    request: Request,
    principal: Reader,
    generation_id: parameters.GenerationId,
    after: parameters.After = None,
    last_event_id: parameters.LastEventId = None,
) -> EventStream:
    """Events are `queued`, `started`, `token`, `restarted`, `completed`, `failed`, `cancelled`; the last three end it.

    `queued` comes with `ahead` and `estimated_wait_s`, as `queue` of the generation has them, where it waits already.

    An event's `id` is a cursor: a stream that is taken up with it goes on exactly after that event. `token` carries
    one or more deltas of the model, with the `logprobs` of their tokens where those were asked for; `seq` counts deltas
    from 1 in each attempt, and is that of the last one. After `restarted` everything that was seen of the answer is
    void, and it begins anew. `completed` has the answer's value as `parsed` where its prompt has a JSON schema.
    Disconnecting cancels nothing.
    """
    ports = _ports(request)
    given = last_event_id or after
    with answers():
        steps = await readers.follow(ports, principal, generation_id, Cursor.parse(given) if given else None)
    return EventStream(_events(steps), ports.ping_s)


async def _events(steps: AsyncGenerator[Step, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        async for step in steps:
            yield sse.encode(step)


@queries.get(
    "/conversations",
    response_model=views.ConversationPage,
    summary="Conversations, newest first",
    responses=responses(401, 403, 422, 503),
)
async def list_conversations(
    request: Request,
    principal: Reader,
    search: parameters.Search = None,
    cursor: parameters.ConversationPageCursor = None,
    limit: parameters.ConversationLimit = 20,
) -> views.ConversationPage:
    """A member sees its own; an admin those of the whole tenant. With `search`, titles are opened one by one."""
    before = ConversationCursor.parse(cursor) if cursor else None
    page = await readers.conversations(_ports(request), principal, search=search, before=before, limit=limit)
    return views.ConversationPage.model_validate(
        {"conversations": page.conversations, "next_cursor": None if page.next is None else str(page.next)}
    )


@queries.get(
    "/conversations/{conversation_id}",
    response_model=views.ConversationWithMessages,
    summary="One conversation with its messages",
    responses=responses(401, 403, 404, 422, 503),
)
async def get_conversation(
    request: Request, principal: Reader, conversation_id: parameters.ConversationId
) -> views.ConversationWithMessages | Response:
    """Messages are a tree: each names its parent, and siblings are edits or regenerations."""
    with answers():
        row = await readers.conversation(_ports(request), principal, conversation_id)
    return raw_json.conversation(views.ConversationWithMessages.of(row))


@queries.get(
    "/provider-keys",
    response_model=views.ProviderKeyList,
    summary="The tenant's own provider keys",
    responses=responses(401, 403, 422, 503),
)
async def list_provider_keys(request: Request, principal: Admin) -> views.ProviderKeyList:
    """What the keys are is shown to nobody."""
    rows = await readers.provider_keys(_ports(request), principal)
    return views.ProviderKeyList.model_validate({"provider_keys": rows})


@queries.get(
    "/events",
    response_class=Response,
    summary="The event log",
    responses={
        200: {
            "model": views.EventPage,
            "description": "A page of the log; as NDJSON, all of it, one line of the log a line",
            "content": {NDJSON: {"schema": {"$ref": "#/components/schemas/EventLine"}}},
        },
        **responses(401, 403, 422, 503),
    },
)
async def get_events(
    request: Request,
    principal: Auditor,
    type: parameters.EventType = None,
    subject: parameters.Subject = None,
    actor: parameters.Actor = None,
    since: parameters.Since = None,
    until: parameters.Until = None,
    correlation_id: parameters.CorrelationId = None,
    cursor: parameters.EventPageCursor = None,
    limit: parameters.EventLimit = 100,
    format: Annotated[
        Literal["json", "ndjson"] | None,
        Query(description="`ndjson`: everything from `cursor` on, streamed; the same as `Accept: " + NDJSON + "`"),
    ] = None,
) -> Response:
    """The tenant's record, in order. That it was read becomes an event of it, too."""
    chosen = EventFilter(type, subject, actor, since, until, correlation_id)
    after = parse_sequence(cursor) if cursor else 0
    if format == "ndjson" or (format is None and NDJSON in request.headers.get("accept", "")):
        lines = await event_log.export(_ports(request), principal, chosen, after=after)
        return StreamingResponse(lines, media_type=NDJSON)
    page = await event_log.page(_ports(request), principal, chosen, after=after, limit=limit)
    body: dict[str, Any] = {
        "events": [event_log.line(row) for row in page.lines],
        "next_cursor": None if page.next is None else str(page.next),
    }
    return Response(orjson.dumps(body), media_type="application/json")


router = APIRouter()
router.include_router(queries)
router.include_router(audit_routes.router)
router.include_router(people_routes.router)
