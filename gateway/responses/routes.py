"""Responses: https://platform.openai.com/docs/api-reference/responses"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from fastapi import Response as HttpResponse

from backplane.ports.database import Row
from backplane.security.content import CannotRead
from backplane.security.principal import Principal
from backplane.web.event_stream import EventStream
from backplane.web.problems import Problem, not_found
from command_api.conversations import NoSuch
from command_api.prompt import PromptBody
from command_api.routes import delete_conversation
from command_api.submission import ProjectionsLag
from command_api.submitting import RecordsRefusals, lag
from gateway import asking
from gateway.asking import Asked, Whole
from gateway.callers import Caller
from gateway.headers import IdempotencyKey
from gateway.openai import errors
from gateway.openai.chat import ANSWER_HEADERS
from gateway.ports import ports_of
from gateway.presence import while_there
from gateway.problems import failed, invalid
from gateway.responses import reading
from gateway.responses.events import Events
from gateway.responses.input_items import input_items
from gateway.responses.output import Json, Output
from gateway.responses.request import ResponseRequest
from gateway.responses.response import QUEUED, Response, id_in, status_of
from gateway.responses.sequence import LARGEST
from gateway.responses.shown import DeletedResponse, InputItems, ResponseView
from query_api.assembly import Step

router = APIRouter(prefix="/v1", tags=["openai"], route_class=RecordsRefusals)

ResponseId = Annotated[
    str, Path(max_length=80, description="the response", examples=["resp_01990f6e8a547c3e9d5b2f6a7b1c0d11"])
]

_STREAM_EXAMPLE = """\
event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":5,"output_index":0,\
"item_id":"msg_01990f6e8a547c3e9d5b2f6a7b1c0d11_1_0","content_index":0,"delta":"Hello","logprobs":[]}

"""
_STREAM: dict[str, Any] = {
    "content": {"text/event-stream": {"example": _STREAM_EXAMPLE}},
}


@router.post(
    "/responses",
    response_model=ResponseView,
    summary="OpenAI: a response",
    responses={
        200: {"headers": ANSWER_HEADERS, **_STREAM},
        **errors.responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503),
    },
)
async def create_response(
    request: Request, principal: Caller, body: ResponseRequest, idempotency_key: IdempotencyKey = None
) -> HttpResponse:
    """As OpenAI's clients know it. A client that goes away stops nothing, unless `store` is false."""
    if body.background and body.store is False:
        raise invalid("store", "what runs in the background is stored")
    previous = None if body.previous_response_id is None else await _previous(request, principal, body)
    prompt = await _prompt(request, principal, body, previous)
    asked = await asking.ask(request, principal, prompt, idempotency_key)
    echo = {"background": bool(body.background), "truncation": body.truncation}
    response = Response.asked(asked, prompt, None if previous is None else previous["id"], echo)
    left_alone = [] if body.keeps_on else [asked]
    if body.stream:
        steps = await asking.follow_asked(request, principal, asked)
        events = _stream(request, principal, steps, Events(response), left_alone)
        return EventStream(events, reading.ports_of(request).ping_s, asked.headers)
    if body.background:
        return errors.json_response(response.document(QUEUED), asked.headers)
    async with asking.stopped_without_reader(request, principal, left_alone):
        steps = await asking.follow_asked(request, principal, asked)
        answer = await while_there(request, asking.whole(steps))
    if answer.ending is not None and answer.ending.event == "failed":
        raise failed(answer.detail)
    return errors.json_response(_whole(response, answer), asked.headers)


@router.get(
    "/responses/{response_id}",
    response_model=ResponseView,
    summary="OpenAI: one response",
    responses={200: _STREAM, **errors.responses(400, 401, 403, 404, 503)},
)
async def get_response(
    request: Request,
    principal: Caller,
    response_id: ResponseId,
    stream: Annotated[bool, Query(description="its events, from the first one on, until it ends")] = False,
    starting_after: Annotated[
        int | None,
        Query(ge=0, le=LARGEST, description="only events whose `sequence_number` is larger", examples=[42]),
    ] = None,
) -> HttpResponse:
    """Any answer of the caller's, however it was asked for. It can be streamed from any number on, at any time: the
    numbers are the same whoever tells them. After a restart they go on far higher; what was told before it is void, and
    the item that was being written is done as `incomplete`."""
    row = await reading.row_of(request, principal, response_id)
    if not stream:
        if starting_after is not None:
            raise invalid("starting_after", "only a stream has a place to start after")
        return errors.json_response(await reading.found(request, principal, row))
    response = await reading.of_row(request, principal, row)
    steps = await asking.follow(request, principal, row["id"])
    events = _stream(request, principal, steps, Events(response, starting_after), [])
    return EventStream(events, reading.ports_of(request).ping_s)


@router.post(
    "/responses/{response_id}/cancel",
    response_model=ResponseView,
    summary="OpenAI: cancel a response",
    responses=errors.responses(401, 403, 404, 503),
)
async def cancel_response(request: Request, principal: Caller, response_id: ResponseId) -> HttpResponse:
    """Whether it runs in the background or not. One that has ended stays as it is."""
    row = await reading.row_of(request, principal, response_id)
    if row["status"] in reading.ENDED:
        return errors.json_response(await reading.found(request, principal, row))
    try:
        await asking.cancel(request, principal, row["id"])
    except NoSuch:
        raise not_found("response") from None
    except ProjectionsLag:
        raise lag() from None
    response = await reading.of_row(request, principal, row)
    steps = await asking.follow(request, principal, row["id"])
    try:
        async with asyncio.timeout(reading.ports_of(request).read_your_writes_s):
            return errors.json_response(_whole(response, await asking.whole(steps)))
    except TimeoutError:
        # The wish is durable. It has not come to its worker yet.
        row = await reading.row_of(request, principal, response_id)
        return errors.json_response(await reading.found(request, principal, row))


@router.delete(
    "/responses/{response_id}",
    summary="OpenAI: delete a response",
    responses=errors.responses(401, 403, 404, 409, 503),
)
async def delete_response(request: Request, principal: Caller, response_id: ResponseId) -> DeletedResponse:
    """With its conversation, of which it has to be the only answer; a longer conversation is deleted as a whole, as
    Parley's own API does. What still runs is cancelled."""
    row = await reading.row_of(request, principal, response_id)
    # What goes on from it may have been accepted a moment ago.
    if not await reading.settle(request):
        raise lag()
    conversation = await reading.conversation_of(request, principal, row)
    if any(one["generation_id"] != row["id"] for one in conversation["messages"]):
        raise Problem(
            409,
            "conversation-goes-on",
            "Conversation goes on",
            "Other responses stand in the same conversation: delete it as a whole, with"
            f" `DELETE /v1/conversations/{row['conversation_id']}`.",
        )
    await delete_conversation(request, principal, row["conversation_id"])
    return DeletedResponse(id=response_id)


@router.get(
    "/responses/{response_id}/input_items",
    response_model=InputItems,
    summary="OpenAI: what a response was asked with",
    responses=errors.responses(400, 401, 403, 404, 503),
)
async def list_input_items(
    request: Request,
    principal: Caller,
    response_id: ResponseId,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="most items of a page")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="oldest or newest first")] = "desc",
) -> HttpResponse:
    """All that stands before it in its conversation, answers too; not the instructions."""
    row = await reading.row_of(request, principal, response_id)
    conversation = await reading.conversation_of(request, principal, row)
    items = input_items(conversation["messages"], row["id"])
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((at for at, one in enumerate(items, 1) if one["id"] == after), None)
        if place is None:
            raise invalid("after", "is no item of this response's")
        items = items[place:]
    page = items[:limit]
    return errors.json_response(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > limit,
        }
    )


async def _previous(request: Request, principal: Principal, body: ResponseRequest) -> Row:
    """The one to go on from. Raises Problem."""
    assert body.previous_response_id is not None
    if body.conversation is not None:
        raise invalid("previous_response_id", "give it or `conversation`, not both")
    try:
        return await reading.row_of(request, principal, body.previous_response_id)
    except Problem as problem:
        if problem.status != 404:
            raise
        why = "There is no such response."
        where = [{"field": "previous_response_id", "message": why}]
        raise Problem(404, "previous-response-not-found", "Not found", why, errors=where) from None


async def _prompt(request: Request, principal: Principal, body: ResponseRequest, previous: Row | None) -> PromptBody:
    """Raises Problem."""
    conversation: UUID | None = None
    if body.conversation is not None:
        named = body.conversation if isinstance(body.conversation, str) else body.conversation.id
        try:
            conversation = id_in(named, "conv")
        except ValueError:
            raise not_found("conversation") from None
    prompt = body.prompt_of(
        await reading.referred(request, principal, body.references),
        model=ports_of(request).model(body.model),
        conversation=conversation,
        previous=None if previous is None else previous["id"],
    )
    if previous is not None and prompt.system is None and _instructed(previous):
        # An empty one takes back what the conversation has.
        return prompt.model_copy(update={"system": ""})
    return prompt


def _instructed(row: Row) -> bool:
    """Whether instructions were for this response only, and would hold on. Those of a persona are its own."""
    said: Sequence[Row] = () if row["asked"] is None else row["asked"]["messages"]
    return row["persona"] is None and any(one["role"] == "system" and isinstance(one["content"], str) for one in said)


def _whole(response: Response, answer: Whole) -> Json:
    ending = answer.ending
    assert ending is not None, "steps end with an ending"
    status = status_of(ending.event, ending.detail.get("finish_reason"))
    items = Output.of(response.generation_id, ending.cursor.attempt, answer.pieces, status)
    return response.ended(ending.event, ending.detail, items)


async def _stream(
    request: Request,
    principal: Principal,
    steps: AsyncGenerator[Step, None],
    events: Events,
    left_alone: Sequence[Asked],
) -> AsyncGenerator[bytes, None]:
    """``left_alone`` is stopped where the client goes away."""
    async with asking.stopped_without_reader(request, principal, left_alone), aclosing(steps):
        if head := b"".join(events.head()):
            yield head
        try:
            async for step in steps:
                if told := b"".join(events.of(step)):
                    yield told
        except CannotRead:
            yield events.broken("server_error", "What was written here cannot be read; it was logged for the operator.")
