"""Endpoints that erase what people wrote, and say for how long it is kept."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import not_found, responses
from command_api.content_policy import set_content_policy
from command_api.conversations import NoSuch
from command_api.erasure import erase_conversation, erase_user
from command_api.ports import ConversationId, Prompter, ports_of, settle_erased
from event_schemas.erasure import ContentPolicy

erasures = APIRouter(prefix="/v1", tags=["commands"])

Admin = Annotated[Principal, Depends(requires("content.manage"))]

UserId = Annotated[UUID, Path(description="the user")]


@erasures.post(
    "/conversations/{conversation_id}/erase",
    status_code=204,
    summary="Erase what was written in a conversation",
    responses=responses(401, 403, 404, 422, 503),
)
async def erase_conversation_content(request: Request, principal: Prompter, conversation_id: ConversationId) -> None:
    """Its data key is deleted: prompts, answers and title can be read by nobody any more, on the bus, in the event log
    and in backups of either. The conversation and its facts stay. What still runs in it is cancelled."""
    try:
        erased = await erase_conversation(ports_of(request).database, principal, conversation_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    await settle_erased(request, principal, erased.event_id, erased.conversations, erased.cancels)


class UserErasedBody(BaseModel):
    conversations: int = Field(description="in how many there was something to erase", examples=[12])


@erasures.post(
    "/users/{user_id}/erase",
    response_model=UserErasedBody,
    summary="Erase what was written in all conversations of a user",
    responses=responses(401, 403, 404, 422, 503),
)
async def erase_user_content(request: Request, principal: Admin, user_id: UserId) -> UserErasedBody:
    """As erasing each of the user's conversations; each has an event of its own."""
    try:
        erased = await erase_user(ports_of(request).database, principal, user_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    await settle_erased(request, principal, erased.event_id, erased.conversations, erased.cancels)
    return UserErasedBody(conversations=len(erased.conversations))


class ContentPolicyBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keeps_content: bool = Field(
        description="false: what is written from now on is gone when its generation has ended", examples=[True]
    )
    content_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        description="days after which a conversation that nobody writes in is erased; none: never",
        examples=[90],
    )


@erasures.put(
    "/content-policy",
    response_model=ContentPolicyBody,
    summary="Say for how long content is kept",
    responses=responses(400, 401, 403, 413, 415, 422, 503),
)
async def put_content_policy(request: Request, principal: Admin, body: ContentPolicyBody) -> ContentPolicyBody:
    """Holds for what the tenant's callers write from now on. The days hold for what was written before, too."""
    ports = ports_of(request)
    policy = ContentPolicy(**body.model_dump())
    await set_content_policy(ports.database, principal.tenant_id, policy, actor=principal.actor)
    ports.relay.wake()
    return body
