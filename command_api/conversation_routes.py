"""Endpoints of a conversation's life."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.ports import suspensions
from backplane.web.problems import Problem, not_found, responses
from command_api.conversation_life import HasEnded
from command_api.conversations import ContentNotKept, NoSuch
from command_api.message_body import Text
from command_api.ports import ConversationId, Prompter, ports_of, settle

router = APIRouter(prefix="/v1", tags=["commands"])

_CONVERSATION = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"
_FORK = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d1f"
_MESSAGE = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"


class BeginBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Text | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="what it is called; none: the first prompt's first words",
        examples=["The colour of the sky"],
    )


class BegunBody(BaseModel):
    conversation_id: UUID = Field(description="the new conversation", examples=[_CONVERSATION])


class ForkBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    message_id: UUID | None = Field(
        None, description="the last message that both have; none: the newest one", examples=[_MESSAGE]
    )
    title: Text | None = Field(
        None, min_length=1, max_length=200, description="of the new one; none: it has none", examples=["Another try"]
    )


class ForkedBody(BaseModel):
    conversation_id: UUID = Field(description="the new conversation", examples=[_FORK])
    message_id: UUID = Field(description="the last message that both have", examples=[_MESSAGE])


class StateBody(BaseModel):
    id: UUID = Field(description="the conversation", examples=[_CONVERSATION])
    state: Literal["active", "suspended", "ended"] = Field(
        description="only an active one takes prompts", examples=["suspended"]
    )


class ResumeBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    conversation_ids: tuple[UUID, ...] = Field(
        min_length=1, max_length=100, description="all of them are resumed, or none", examples=[[_CONVERSATION]]
    )


class ResumedBody(BaseModel):
    conversation_ids: tuple[UUID, ...] = Field(description="what takes prompts now", examples=[[_CONVERSATION]])


@router.post(
    "/conversations",
    status_code=201,
    response_model=BegunBody,
    summary="Begin a conversation in which nothing is said yet",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def begin_conversation(request: Request, principal: Prompter, body: BeginBody) -> BegunBody:
    """Prompts need none: one that names no conversation begins its own. This is for who shows one before that."""
    with _answers():
        begun = await ports_of(request).life.begin(principal, body.title)
    await settle(request, principal, begun.event_id)
    return BegunBody(conversation_id=begun.conversation_id)


@router.post(
    "/conversations/{conversation_id}/fork",
    status_code=201,
    response_model=ForkedBody,
    summary="Fork a conversation at a message",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def fork_conversation(
    request: Request, principal: Prompter, conversation_id: ConversationId, body: ForkBody
) -> ForkedBody:
    """The new one shows what was said up to the message, and goes on by itself. What both have stays where it was
    written: who erases the first one erases it in both. What is said in the fork is erased with the fork."""
    with _answers():
        forked = await ports_of(request).life.fork(principal, conversation_id, body.message_id, body.title)
    await settle(request, principal, forked.event_id)
    return ForkedBody(conversation_id=forked.conversation_id, message_id=forked.message_id)


@router.post(
    "/conversations/{conversation_id}/suspend",
    response_model=StateBody,
    summary="Let a conversation rest",
    responses=responses(401, 403, 404, 409, 422, 503),
)
async def suspend_conversation(request: Request, principal: Prompter, conversation_id: ConversationId) -> StateBody:
    """It takes no prompts until it is resumed: they are a 409. What runs in it comes to its end. llama.cpp puts what it
    has read of it on disk, so that it need not read that again."""
    with _answers():
        event_id = await ports_of(request).life.suspend(principal, conversation_id)
    if event_id is not None:
        await suspensions.announce(ports_of(request).signals, principal.tenant_id, conversation_id)
        await settle(request, principal, event_id)
    return StateBody(id=conversation_id, state="suspended")


@router.post(
    "/conversations/{conversation_id}/resume",
    response_model=StateBody,
    summary="Go on with a conversation that rests",
    responses=responses(401, 403, 404, 409, 422, 503),
)
async def resume_conversation(request: Request, principal: Prompter, conversation_id: ConversationId) -> StateBody:
    """It takes prompts again. One that does not rest stays as it is."""
    with _answers():
        event_id = await ports_of(request).life.resume(principal, [conversation_id])
    if event_id is not None:
        await settle(request, principal, event_id)
    return StateBody(id=conversation_id, state="active")


@router.post(
    "/conversations/resume",
    response_model=ResumedBody,
    summary="Go on with several conversations that rest",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def resume_conversations(request: Request, principal: Prompter, body: ResumeBody) -> ResumedBody:
    """All of them in one transaction; where one is not there, or has ended, none is resumed."""
    with _answers():
        event_id = await ports_of(request).life.resume(principal, body.conversation_ids)
    if event_id is not None:
        await settle(request, principal, event_id)
    return ResumedBody(conversation_ids=body.conversation_ids)


@router.post(
    "/conversations/{conversation_id}/end",
    response_model=StateBody,
    summary="End a conversation",
    responses=responses(401, 403, 404, 422, 503),
)
async def end_conversation(request: Request, principal: Prompter, conversation_id: ConversationId) -> StateBody:
    """It takes no prompts any more, and can be read. Its model makes a summary, which is kept with it. It costs like
    a prompt, and is left out where the limits do not allow it."""
    with _answers():
        ended = await ports_of(request).life.end(principal, conversation_id)
    if ended is not None:
        await settle(request, principal, ended.event_id)
    return StateBody(id=conversation_id, state="ended")


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except HasEnded:
        raise Problem(
            409, "conversation-ended", "Conversation ended", "This conversation was ended. Fork it to go on from it."
        ) from None
    except ContentNotKept:
        raise Problem(
            409,
            "content-not-kept",
            "Content is not kept",
            "This tenant keeps no content, so no titles and nothing to fork.",
        ) from None
