"""Discord's interactions: https://docs.discord.com/developers/interactions/receiving-and-responding"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from command_api.chat_replies import Question
from gateway.chat_tools import receiving, signatures
from gateway.chat_tools.receiving import ChatToolId, field, mapping
from gateway.chat_tools.signatures import NotSigned

router = APIRouter(prefix="/chat-tools", tags=["chat tools"])

_PING, _COMMAND = 1, 2
_PONG, _MESSAGE, _DEFERRED = 1, 4, 5
_ONLY_TO_WHO_ASKED = 64
_CHAT_INPUT = 1
_STRING = 3

_EXAMPLE = {
    "type": _COMMAND,
    "id": "846462639134605312",
    "application_id": "845027738276462632",
    "token": "A_UNIQUE_TOKEN",
    "channel_id": "645027906669510667",
    "data": {
        "type": _CHAT_INPUT,
        "name": "ask",
        "options": [{"type": _STRING, "name": "question", "value": "Why is the sky blue?"}],
    },
}


@router.post(
    "/{chat_tool_id}/discord",
    summary="Discord: interactions",
    responses={200: {"content": {"application/json": {"example": {"type": _DEFERRED}}}}, **receiving.ERRORS},
    openapi_extra=receiving.body_of({"application/json": _EXAMPLE}) | {"security": []},
)
async def receive_discord(
    request: Request,
    chat_tool_id: ChatToolId,
    timestamp: Annotated[str, Header(alias="X-Signature-Timestamp", description="when it was signed, in seconds")] = "",
    signature: Annotated[str, Header(alias="X-Signature-Ed25519", description="the signature, in hexadecimal")] = "",
) -> Response:
    """Signed by Discord. What is asked is durable before this is answered, and is asked once however often it comes."""
    body = await request.body()
    try:
        tool = await receiving.known(request, chat_tool_id, "discord")
        signatures.discord(tool.secrets["public_key"], timestamp, signature, body, time.time())
    except NotSigned:
        raise receiving.not_signed() from None
    interaction = receiving.json_of(body)
    if interaction.get("type") == _PING:
        return JSONResponse({"type": _PONG})
    data = mapping(interaction, "data")
    if interaction.get("type") != _COMMAND or data.get("type") != _CHAT_INPUT:
        return _told("Only slash commands are understood here: no buttons, menus, forms or suggestions.")
    text = receiving.asked(_text(data.get("options")))
    if not text:
        return _told("Ask something: this command needs a text.")
    place = {
        "application": field(interaction, "application_id"),
        "token": field(interaction, "token"),
        "channel": field(interaction, "channel_id"),
    }
    question = Question(text, place)
    replies = receiving.ports_of(request).chat_replies
    await replies.ask(tool, field(interaction, "id"), place["channel"], question)
    return JSONResponse({"type": _DEFERRED})


def _text(options: object) -> object:
    """The first text that was given with a command, or with its subcommand."""
    given: Sequence[object] = options if isinstance(options, list) else ()
    for one in given:
        if isinstance(one, Mapping):
            found: Any = one.get("value") if one.get("type") == _STRING else _text(one.get("options"))
            if found:
                return found
    return None


def _told(text: str) -> Response:
    return JSONResponse({"type": _MESSAGE, "data": {"content": text, "flags": _ONLY_TO_WHO_ASKED}})
