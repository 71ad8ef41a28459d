"""`/chat/`: chats, which are conversations, their end and their history."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field

from backplane.security.authenticator import Authenticator, NotAccepted
from backplane.security.principal import Principal
from backplane.web.problems import Problem, not_found
from command_api.conversations import NoSuch
from command_api.ports import ports_of as command_ports
from command_api.ports import settle
from command_api.submitting import RecordsRefusals
from gateway.earlier.answering import answered, prompt
from gateway.earlier.callers import holds_as_before
from gateway.earlier.characters.errors import no_history
from gateway.earlier.details import responses
from gateway.earlier.saying import said_in
from gateway.ports import ports_of
from query_api import readers
from query_api.answers import answers

router = APIRouter(tags=["earlier: characters"], route_class=RecordsRefusals)

Chatter = Annotated[Principal, Depends(holds_as_before("conversations.use"))]
ChatId = Annotated[
    str | None,
    Field(description="the chat to go on with; none: a new one", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"]),
]
Message = Annotated[str, Field(description="what is said", examples=["What is poetry in Python?"])]
Model = Annotated[str, Field(max_length=200, description="which model", examples=["gemma-3-270m"])]

_NAMES = {"input": "message", "": "message"}
_SUMMARY_S = 20.0
_SUMMARY_POLL_S = 0.1
_CHAT = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"


class ChatMessageRequest(BaseModel):
    message: Message
    model: Model
    chat_id: ChatId = None


class ChatAnswer(BaseModel):
    response: str = Field(description="the answer", examples=["A packaging tool."])
    chat_id: str = Field(description="the chat, to go on with", examples=[_CHAT])


class ChatEnded(BaseModel):
    status: str = Field(
        description="that it ended, and whether it has a summary", examples=["Chat session ended, summary saved"]
    )


class ChatHistory(BaseModel):
    chat_id: str = Field(description="the chat", examples=[_CHAT])
    user_id: str = Field(description="whose it is: the user of the key", examples=[_CHAT])
    history: list[str] = Field(
        description="what was said, oldest first: objects with `text` and `role`, as JSON",
        examples=[['{"text": "Hello!", "role": "user"}', '{"text": "Good morning.", "role": "assistant"}']],
    )
    summary: str = Field(description="the newest one; empty: there is none", examples=["They greeted each other."])


def chat_of(chat_id: str) -> UUID:
    """Raises Problem."""
    try:
        return UUID(chat_id)
    except ValueError:
        raise not_found("chat") from None


async def said(
    request: Request, principal: Principal, chat_id: str | None, model: str, message: str, **more: Any
) -> ChatAnswer:
    """The answer to ``message``. Raises Problem."""
    where = {} if chat_id is None else {"conversation_id": chat_of(chat_id)}
    body = prompt({**where, "model": ports_of(request).model(model), "input": message, **more}, _NAMES)
    found = await answered(request, principal, body)
    return ChatAnswer(response=found.text, chat_id=str(found.asked.conversation_id))


@router.post(
    "/chat/",
    summary="Characters: chat with a model",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503),
)
async def chat(request: Request, principal: Chatter, body: ChatMessageRequest) -> ChatAnswer:
    """A client that goes away stops the answer."""
    return await said(request, principal, body.chat_id, body.model, body.message)


@router.post(
    "/end_chat_session/",
    summary="Characters: end a chat",
    responses=responses(401, 403, 404, 422, 429, 503),
)
async def end_chat(
    request: Request,
    principal: Chatter,
    chat_id: Annotated[str, Query(description="the chat", examples=[_CHAT])],
) -> ChatEnded:
    """It takes no messages any more, and its model is asked for a summary, for which this waits a while. A chat that
    had ended before is answered at once, with the summary that there is by then."""
    conversation_id = chat_of(chat_id)
    with answers():
        # Its answer came before the read models had it.
        await readers.conversation(request.app.state.query, principal, conversation_id)
    try:
        ended = await command_ports(request).life.end(principal, conversation_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    if ended is not None:
        await settle(request, principal, ended.event_id)
    summary = await _summary(request, principal, conversation_id, waits=ended is not None and ended.asks_summary)
    return ChatEnded(status="Chat session ended, summary saved" if summary else "Chat session ended")


async def _summary(request: Request, principal: Principal, conversation_id: UUID, *, waits: bool) -> str | None:
    """None where there is none in time: it waits behind all prompts."""
    try:
        async with asyncio.timeout(_SUMMARY_S):
            while True:
                with answers():
                    row = await readers.conversation(request.app.state.query, principal, conversation_id)
                summary: str | None = row["summary"]
                if summary is not None or not waits:
                    return summary
                await asyncio.sleep(_SUMMARY_POLL_S)
    except TimeoutError:
        return None


@router.get(
    "/chat/{user_key}/{chat_id}/history",
    summary="Characters: what was said in a chat",
    responses=responses(401, 403, 404, 503),
)
async def history(
    request: Request,
    principal: Annotated[Principal, Depends(holds_as_before("conversations.all"))],
    user_key: Annotated[str, Path(description="the key of whose chat it is")],
    chat_id: Annotated[str, Path(description="the chat")],
) -> ChatHistory:
    """For admins. The key in the URL is in no log line."""
    authenticator: Authenticator = request.app.state.authenticator
    try:
        owner = await authenticator.principal(user_key)
        conversation_id = chat_of(chat_id)
        if owner.tenant_id != principal.tenant_id or not owner.may("conversations.use"):
            raise no_history()
        with answers():
            row = await readers.conversation(request.app.state.query, owner, conversation_id)
    except NotAccepted:
        raise no_history() from None
    except Problem as problem:
        raise (no_history() if problem.status == 404 else problem) from None
    told = [(role, text) for role, text in said_in(row["messages"]) if role != "system"]
    return ChatHistory(
        chat_id=str(conversation_id),
        user_id=str(owner.user_id or owner.key_id),
        history=[json.dumps({"text": text, "role": role}) for role, text in told],
        summary=row["summary"] or "",
    )
