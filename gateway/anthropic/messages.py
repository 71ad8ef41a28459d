"""Messages: https://platform.claude.com/docs/en/api/messages"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import ServerSentEvent

from backplane.security.principal import Principal
from backplane.web.event_stream import SEPARATOR, EventStream
from backplane.web.problems import Problem
from command_api.chat_request import NotAPrompt
from command_api.prompt import PromptBody
from command_api.submitting import RecordsRefusals, counted
from gateway import asking, choices
from gateway.anthropic import errors
from gateway.anthropic.answer import (
    AnsweredMessage,
    BrokenInput,
    CountedTokens,
    content,
    message,
    stopped,
    usage,
)
from gateway.anthropic.events import Events, event
from gateway.anthropic.limits import HEADERS, in_their_words
from gateway.anthropic.request import CountRequest, MessagesRequest
from gateway.asking import Asked, BegunAgain
from gateway.callers import Caller
from gateway.conversation import going_on, named
from gateway.headers import NAMES, ConversationId, IdempotencyKey
from gateway.ports import ports_of
from gateway.problems import BEGUN_AGAIN, failed, invalid
from query_api.assembly import STARTED, TOKEN, Step

router = APIRouter(prefix="/v1/messages", tags=["anthropic"], route_class=RecordsRefusals)

_PING = ServerSentEvent(event="ping", data='{"type":"ping"}', sep=SEPARATOR)

_STREAM_EXAMPLE = """\
event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: message_stop
data: {"type":"message_stop"}

"""


@router.post(
    "",
    response_model=AnsweredMessage,
    response_class=JSONResponse,
    summary="Anthropic: a message",
    responses={
        200: {
            "headers": NAMES | HEADERS,
            "content": {"text/event-stream": {"example": _STREAM_EXAMPLE}},
        },
        **errors.responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 529),
    },
)
async def create_message(
    request: Request,
    principal: Caller,
    body: MessagesRequest,
    idempotency_key: IdempotencyKey = None,
    conversation_id: ConversationId = None,
) -> Response:
    """As Anthropic's clients know it. A client that goes away stops the generation."""
    asked = await asking.ask(request, principal, _prompt(request, body, conversation_id), idempotency_key)
    stops = body.stop_sequences or ()
    id, headers = f"msg_{asked.generation_id}", _headers(request, asked.headers)
    if body.stream:
        steps = await asking.follow_asked(request, principal, asked)
        events = Events(id, asked.model, stops, shows_thinking=body.shows_thinking)
        told = _stream(request, principal, asked, steps, events)
        return EventStream(told, request.app.state.query.ping_s, headers, ping=_PING)
    (whole,) = await choices.all_whole(request, principal, [asked], keeps_on=False)
    reason = whole.detail["finish_reason"]
    ended = stopped(whole.detail, stops)
    try:
        said = content(whole.pieces, reason, shows_thinking=body.shows_thinking)
    except BrokenInput as broken:
        raise Problem(502, "broken-input", "Broken input", str(broken)) from None
    model = whole.served_model or asked.model
    found = message(id, model, said, ended, usage(whole.detail["usage"]))
    return Response(orjson.dumps(found), headers=headers, media_type="application/json")


@router.post(
    "/count_tokens",
    response_class=JSONResponse,
    response_model=CountedTokens,
    summary="Anthropic: tokens of a message",
    responses=errors.responses(400, 401, 403, 404, 413, 429, 529),
)
async def count_tokens(request: Request, principal: Caller, body: CountRequest) -> Response:
    """What the model would read, without asking it. A picture counts as a thousand tokens."""
    tokens = counted(request, principal, _prompt(request, body))
    return Response(orjson.dumps({"input_tokens": tokens}), headers=_headers(request), media_type="application/json")


def _headers(request: Request, of_answer: dict[str, str] | None = None) -> dict[str, str]:
    return in_their_words(of_answer or {}) | {"request-id": request.state.request_id}


def _prompt(request: Request, body: CountRequest, conversation_id: UUID | None = None) -> PromptBody:
    """Raises Problem."""
    try:
        prompt = body.prompt()
    except NotAPrompt as wrong:
        raise invalid(wrong.field, wrong.why) from None
    metadata = dict(prompt.metadata)
    changes: dict[str, Any] = {"model": ports_of(request).model(body.model)}
    conversation_id = named(conversation_id, metadata)
    return going_on(prompt, conversation_id).model_copy(update=changes | {"metadata": metadata})


async def _stream(
    request: Request, principal: Principal, asked: Asked, steps: AsyncGenerator[Step, None], events: Events
) -> AsyncGenerator[bytes, None]:
    def error(problem: Problem) -> bytes:
        return event(errors.document(problem, request.state.request_id))

    has_begun = False
    async with asking.stopped_without_reader(request, principal, [asked]):
        try:
            async for step in asking.told(steps):
                if step.event == STARTED:
                    events.model = step.detail.get("model", events.model)
                if step.event in ("failed", "cancelled"):
                    yield error(failed(step.detail))
                    return
                if not has_begun:
                    has_begun = True
                    yield events.begin()
                if step.event == TOKEN:
                    for one in events.tokens(step.deltas):
                        yield one
                elif step.event == "completed":
                    for one in events.finish(step.detail):
                        yield one
        except BegunAgain:
            yield error(BEGUN_AGAIN)
