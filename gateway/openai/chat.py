"""Chat completions: https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from backplane.security.principal import Principal
from backplane.web.event_stream import EventStream
from command_api.chat_request import ChatRequest, NotAPrompt
from command_api.limit_answers import RATE_HEADERS
from command_api.prompt import PromptBody
from command_api.submitting import RecordsRefusals
from gateway import asking, choices
from gateway.asking import Asked, BegunAgain
from gateway.callers import Caller
from gateway.conversation import going_on, named
from gateway.headers import NAMES, ConversationId, IdempotencyKey
from gateway.merging import merged
from gateway.openai import errors
from gateway.openai.answer import ChatCompletion
from gateway.openai.chunks import DONE, Chunks, event
from gateway.ports import ports_of
from gateway.problems import BEGUN_AGAIN, failed, invalid
from query_api.assembly import STARTED, TOKEN, Step
from query_api.chat_completion import choice, usage

router = APIRouter(prefix="/v1", tags=["openai"], route_class=RecordsRefusals)

ANSWER_HEADERS: dict[str, Any] = NAMES | RATE_HEADERS

_STREAM_EXAMPLE = """\
data: {"id":"chatcmpl-01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11","object":"chat.completion.chunk","created":1767225600,\
"model":"gemma-3-270m","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}

data: [DONE]

"""


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    summary="OpenAI: a chat completion",
    responses={
        200: {
            "headers": ANSWER_HEADERS,
            "content": {"text/event-stream": {"example": _STREAM_EXAMPLE}},
        },
        **errors.responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503),
    },
)
async def create_chat_completion(
    request: Request,
    principal: Caller,
    body: ChatRequest,
    idempotency_key: IdempotencyKey = None,
    conversation_id: ConversationId = None,
) -> Response:
    """As OpenAI's clients know it. A client that goes away stops the generation, unless `store` is true."""
    prompts = [_prompt(request, body, conversation_id)] * (body.n or 1)
    asked = await choices.ask_all(request, principal, prompts, idempotency_key)
    keeps_on = bool(body.store)
    if body.stream:
        with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        chunks = Chunks(f"chatcmpl-{asked[0].generation_id}", int(time.time()), asked[0].model, with_usage)
        streams = await choices.follow_all(request, principal, asked)
        events = _stream(request, principal, asked, streams, chunks, keeps_on=keeps_on)
        return EventStream(events, request.app.state.query.ping_s, asked[0].headers)
    answers = await choices.all_whole(request, principal, asked, keeps_on=keeps_on)
    return errors.json_response(
        {
            "id": f"chatcmpl-{asked[0].generation_id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": answers[0].served_model or asked[0].model,
            "choices": [choice(index, one.answer) for index, one in enumerate(answers)],
            "usage": usage([one.detail["usage"] for one in answers]),
        },
        asked[0].headers,
    )


def _prompt(request: Request, body: ChatRequest, conversation_id: UUID | None) -> PromptBody:
    """Raises Problem."""
    metadata = dict(body.metadata or {})
    conversation_id = named(conversation_id, metadata)
    if conversation_id is not None and body.n not in (None, 1):
        raise invalid("n", "a conversation goes on with one answer")
    if body.user is not None:
        metadata.setdefault("user", body.user)
    try:
        prompt = body.model_copy(update={"metadata": metadata}).prompt()
    except NotAPrompt as wrong:
        raise invalid(wrong.field, wrong.why) from None
    return going_on(prompt, conversation_id).model_copy(update={"model": ports_of(request).model(body.model)})


async def _stream(
    request: Request,
    principal: Principal,
    asked: Sequence[Asked],
    streams: Sequence[AsyncGenerator[Step, None]],
    chunks: Chunks,
    *,
    keeps_on: bool,
) -> AsyncGenerator[bytes, None]:
    with_usage, used = chunks.usage_is_null, []
    begun: set[int] = set()
    async with asking.stopped_without_reader(request, principal, [] if keeps_on else asked):
        try:
            async for index, step in merged([asking.told(one) for one in streams]):
                if step.event == STARTED:
                    chunks.model = step.detail.get("model", chunks.model)
                if index not in begun:
                    begun.add(index)
                    yield chunks.begin(index)
                if step.event == TOKEN:
                    for chunk in chunks.tokens(index, step.deltas):
                        yield chunk
                elif step.event == "completed":
                    used.append(step.detail["usage"])
                    yield chunks.finish(index, step.detail["finish_reason"])
                elif step.event != STARTED:
                    yield event(errors.document(failed(step.detail)))
                    return
        except BegunAgain:
            yield event(errors.document(BEGUN_AGAIN))
            return
        if with_usage:
            yield chunks.usage(usage(used))
        yield DONE
