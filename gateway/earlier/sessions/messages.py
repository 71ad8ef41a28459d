"""`POST /v1/gpt/sessions/{id}/messages`: what is said in a session, and the answer as a stream of plain text."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import StreamingResponse

from backplane.security.principal import Principal
from backplane.web.problems import Problem
from command_api.chat_request import NotAPrompt, chat_request, valid
from command_api.limit_answers import RATE_HEADERS
from command_api.prompt import PromptBody
from command_api.submitting import RecordsRefusals
from event_schemas.chat import text_of
from gateway import asking
from gateway.anthropic.request import MessagesRequest
from gateway.asking import Asked, BegunAgain
from gateway.conversation import going_on
from gateway.earlier.answering import invalid, message
from gateway.earlier.details import responses
from gateway.earlier.sessions.callers import Caller
from gateway.earlier.sessions.families import Family, model_of
from gateway.earlier.sessions.sessions import SessionId
from gateway.headers import NAMES
from gateway.ports import ports_of
from gateway.presence import while_there
from gateway.problems import BEGUN_AGAIN, failed
from query_api.assembly import STARTED, TOKEN

router = APIRouter(prefix="/v1/gpt/sessions", tags=["earlier: sessions"], route_class=RecordsRefusals)

_TEXT = "text/plain; charset=utf-8"
_EXAMPLE = {"model": "gpt-4", "message": {"role": "user", "content": "What is poetry in Python?"}, "stream": True}


@router.post(
    "/{gpt_session_id}/messages",
    response_class=StreamingResponse,
    summary="Sessions: say something",
    responses={
        200: {
            "description": "The answer, as it is made",
            "headers": NAMES | RATE_HEADERS,
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "A packaging tool."}},
        },
        **responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503),
    },
)
async def say(
    request: Request,
    principal: Caller,
    gpt_session_id: SessionId,
    body: Annotated[
        dict[str, Any],
        Body(
            description="as the provider's own API takes it; OpenAI's may have a single `message`. Of several,"
            " those after the last assistant's are new",
            examples=[_EXAMPLE],
        ),
    ],
    gpt_type: Annotated[Family, Query(description="whose model, and whose form `body` has")] = "openai",
) -> StreamingResponse:
    """Begins with the first token. What goes wrong after it is a last line that begins with `Error: `. A client that
    goes away stops the answer."""
    try:
        said = _from_openai(body) if gpt_type == "openai" else valid(MessagesRequest, body).prompt()
    except NotAPrompt as wrong:
        raise invalid(f"body.{wrong.field}", wrong.why) from None
    if said.tools:
        raise invalid("body.tools", "an answer is plain text here, which can call no tools")
    model = model_of(ports_of(request), gpt_type, said.model)
    prompt = going_on(said, gpt_session_id).model_copy(update={"model": model})
    asked = await asking.ask(request, principal, prompt)
    texts = _texts(request, principal, asked)
    first = await while_there(request, anext(texts, ""))
    return StreamingResponse(_lines(first, texts), headers=asked.headers, media_type=_TEXT)


def _from_openai(body: dict[str, Any]) -> PromptBody:
    """Raises NotAPrompt."""
    if "message" in body and "messages" not in body:
        body = {name: value for name, value in body.items() if name != "message"} | {"messages": [body["message"]]}
    return chat_request(body).prompt()


async def _texts(request: Request, principal: Principal, asked: Asked) -> AsyncGenerator[str, None]:
    """Raises Problem where the answer does not complete."""
    async with asking.stopped_without_reader(request, principal, [asked]):
        steps = await asking.follow_asked(request, principal, asked)
        try:
            async with aclosing(asking.told(steps)) as told:
                async for step in told:
                    if step.event == TOKEN:
                        if said := text_of(step.deltas):
                            yield said
                    elif step.event not in (STARTED, "completed"):
                        raise failed(step.detail)
        except BegunAgain:
            raise BEGUN_AGAIN from None


async def _lines(first: str, texts: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(texts):
        yield first
        try:
            async for text in texts:
                yield text
        except Problem as problem:
            # The status is sent; a text that ends would pass for the whole answer.
            yield f"\nError: {message(problem)}"
