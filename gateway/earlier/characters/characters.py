"""`/create_npc/`, `/chat_npc/`: characters, which are personas."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.web.problems import Problem
from command_api.admission import Refused
from command_api.message_body import Text
from command_api.persona import InvalidPersona
from command_api.ports import ports_of, settle
from command_api.submitting import RecordsRefusals
from event_schemas.personas import Character, PersonaContent
from gateway.earlier.answering import invalid
from gateway.earlier.callers import holds_as_before
from gateway.earlier.characters.chats import ChatAnswer, ChatId, Chatter, Message, Model, said
from gateway.earlier.characters.errors import no_character
from gateway.earlier.details import responses
from query_api import personas
from query_api.answers import answers

router = APIRouter(tags=["earlier: characters"], route_class=RecordsRefusals)

_SYSTEM = "WORLD SETTING: {character.world}\n###\n{character.description}"
_SCRATCHPAD = (
    "\nYou can use <scratchpad>...</scratchpad> for thinking before you answer: everything between these tags will be"
    " hidden from the user and only visible to the company."
)
_NPC = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d16"


class CharacterRequest(BaseModel):
    char_descr: Text = Field(min_length=1, max_length=30_000, description="who it is", examples=["A gruff innkeeper."])
    world_descr: Text = Field(
        min_length=1, max_length=30_000, description="where it lives", examples=["A valley without winter."]
    )
    has_scratchpad: bool = Field(
        False, description="it may think before it speaks, which nobody is shown", examples=[True]
    )


class CharacterSaved(BaseModel):
    status: str = Field(description="that it went well", examples=["NPC successfully saved"])
    npc_id: str = Field(description="names it: the name of a persona", examples=[_NPC])


class CharacterChatRequest(BaseModel):
    npc_id: str = Field(max_length=64, description="the character, or any other persona's name", examples=[_NPC])
    message: Message
    model: Model
    chat_id: ChatId = None


@router.post(
    "/create_npc/",
    summary="Characters: make one",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 429, 503),
)
async def create_character(
    request: Request,
    principal: Annotated[Principal, Depends(holds_as_before("personas.manage"))],
    body: CharacterRequest,
) -> CharacterSaved:
    """Saves a persona, which `GET /v1/personas` shows, too."""
    content = PersonaContent(
        system=_SYSTEM + (_SCRATCHPAD if body.has_scratchpad else ""),
        scratchpad=body.has_scratchpad,
        character=Character(description=body.char_descr, world=body.world_descr),
    )
    name = str(new_id())
    try:
        saved = await ports_of(request).personas.save(principal.tenant_id, name, content, actor=principal.actor)
    except Refused as refused:
        raise Problem(409, refused.type, "The character is refused", str(refused)) from None
    except InvalidPersona as wrong:
        raise invalid("char_descr", str(wrong)) from None
    assert saved.event_id is not None
    await settle(request, principal, saved.event_id)
    return CharacterSaved(status="NPC successfully saved", npc_id=name)


@router.post(
    "/chat_npc/",
    summary="Characters: talk to one",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503),
)
async def chat_with_character(request: Request, principal: Chatter, body: CharacterChatRequest) -> ChatAnswer:
    """A client that goes away stops the answer. A chat that was with another character goes on with this one."""
    try:
        with answers():
            known = await personas.one(request.app.state.query, principal, body.npc_id)
    except Problem as problem:
        raise (no_character() if problem.status == 404 else problem) from None
    return await said(request, principal, body.chat_id, body.model, body.message, persona=known.name)
