"""`/v1/gpt/sessions`: sessions, which are conversations that are begun before anything is said."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.database import Row
from backplane.security.principal import Principal
from command_api.conversation_routes import BeginBody, begin_conversation
from command_api.message_body import Text
from command_api.routes import ConversationChanges, delete_conversation, rename_conversation
from gateway.earlier.details import responses
from gateway.earlier.saying import said_in
from gateway.earlier.sessions.callers import Caller
from query_api import readers
from query_api.answers import answers

router = APIRouter(prefix="/v1/gpt/sessions", tags=["earlier: sessions"])

SessionId = Annotated[UUID, Path(description="the session")]

_MOST = 1000
_UNNAMED = "New Session"
_SESSION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"
_USER = "01990f6e-0000-7000-8000-000000000001"


class SessionMessage(BaseModel):
    role: str = Field(description="who said it: `system`, `user` or `assistant`", examples=["user"])
    content: str = Field(description="what was said", examples=["What is poetry in Python?"])


class SessionInfo(BaseModel):
    session_id: str = Field(description="the session: a conversation", examples=[_SESSION])
    session_name: str = Field(description=f"what it is called; `{_UNNAMED}`: nothing yet", examples=["About tea"])


class ChatSession(SessionInfo):
    user_id: str = Field(description="whose it is; empty: nobody's", examples=[_USER])
    messages: list[SessionMessage] = Field(description="what was said, oldest first")


class SessionName(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text = Field(min_length=1, max_length=200, description="the new one", examples=["About tea"])


@router.post(
    "",
    status_code=201,
    summary="Sessions: begin one",
    responses={
        201: {"headers": {"Location": {"description": "the session", "schema": {"type": "string"}}}},
        **responses(401, 403, 503),
    },
)
async def begin_session(request: Request, response: Response, principal: Caller) -> ChatSession:
    begun = await begin_conversation(request, principal, BeginBody(title=None))
    response.headers["Location"] = f"/v1/gpt/sessions/{begun.conversation_id}"
    return ChatSession(
        session_id=str(begun.conversation_id),
        session_name=_UNNAMED,
        user_id=str(principal.user_id or ""),
        messages=[],
    )


@router.get("", summary="Sessions: one's own", responses=responses(401, 403, 503))
async def list_sessions(request: Request, principal: Caller) -> list[SessionInfo]:
    """Newest first, a thousand at most. A member sees its own, an admin all of the tenant's."""
    with answers():
        page = await readers.conversations(request.app.state.query, principal, search=None, before=None, limit=_MOST)
    return [SessionInfo(**_named(one)) for one in page.conversations]


@router.get("/{gpt_session_id}", summary="Sessions: one", responses=responses(401, 403, 404, 422, 503))
async def get_session(request: Request, principal: Caller, gpt_session_id: SessionId) -> ChatSession:
    row = await _session(request, principal, gpt_session_id)
    return ChatSession(**_named(row), user_id=str(row["user_id"] or ""), messages=_messages(row))


@router.put(
    "/{gpt_session_id}",
    response_class=Response,
    summary="Sessions: rename one",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
)
async def rename_session(request: Request, principal: Caller, gpt_session_id: SessionId, body: SessionName) -> Response:
    await rename_conversation(request, principal, gpt_session_id, ConversationChanges(title=body.name))
    return Response()


@router.delete(
    "/{gpt_session_id}",
    status_code=204,
    summary="Sessions: delete one",
    responses=responses(401, 403, 404, 422, 503),
)
async def delete_session(request: Request, principal: Caller, gpt_session_id: SessionId) -> None:
    """With what was said in it."""
    await delete_conversation(request, principal, gpt_session_id)


@router.get(
    "/{gpt_session_id}/messages",
    summary="Sessions: what was said in one",
    responses=responses(401, 403, 404, 422, 503),
)
async def list_messages(request: Request, principal: Caller, gpt_session_id: SessionId) -> list[SessionMessage]:
    """Oldest first."""
    return _messages(await _session(request, principal, gpt_session_id))


async def _session(request: Request, principal: Principal, session_id: UUID) -> Row:
    with answers():
        return await readers.conversation(request.app.state.query, principal, session_id)


def _named(row: Row) -> dict[str, Any]:
    return {"session_id": str(row["id"]), "session_name": row["title"] or _UNNAMED}


def _messages(row: Row) -> list[SessionMessage]:
    return [SessionMessage(role=role, content=text) for role, text in said_in(row["messages"])]
