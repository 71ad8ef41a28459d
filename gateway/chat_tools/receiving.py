"""What all chat tools' requests are checked by before anything of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Path, Request

from backplane.web.problems import Problem, responses
from command_api.chat_tools import ChatToolKind, Known, NoSuchChatTool
from command_api.ports import CommandPorts
from gateway.chat_tools.signatures import NotSigned

ChatToolId = Annotated[UUID, Path(description="the chat tool, as the 201 named it")]

ERRORS = responses(400, 401, 404, 413, 422, 503)

_PROVES = "Nothing proves that this request is the chat tool's own, and a new one."


def ports_of(request: Request) -> CommandPorts:
    ports: CommandPorts = request.app.state.command
    return ports


async def known(request: Request, chat_tool_id: UUID, kind: ChatToolKind) -> Known:
    """Which tool is named. Raises NotSigned, so that nobody learns which there are."""
    try:
        return await ports_of(request).chat_tools.named(chat_tool_id, kind)
    except NoSuchChatTool:
        raise NotSigned("there is no such chat tool") from None


def not_signed() -> Problem:
    return Problem(401, "not-signed", "Not signed", _PROVES)


def json_of(body: bytes) -> Mapping[str, Any]:
    """Raises Problem."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise malformed("The body is not JSON.") from None
    if not isinstance(found, dict):
        raise malformed("The body is no JSON object.")
    return found


def malformed(why: str) -> Problem:
    return Problem(400, "malformed-request", "Malformed request", why)


def field(holder: Mapping[str, Any], name: str) -> str:
    """A text that has to be there. Raises Problem."""
    found = holder.get(name)
    if not isinstance(found, str) or not found or "\0" in found:
        raise malformed(f"There is no {name!r}.")
    return found


def mapping(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object, empty where there is none."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def asked(text: object) -> str:
    """What was asked; empty where nothing was."""
    return text.replace("\0", "").strip() if isinstance(text, str) else ""


def body_of(media_types: Mapping[str, object]) -> dict[str, Any]:
    """For the OpenAPI document: bodies with an example each. They are read once they are proved."""
    content = {
        media_type: {"schema": {"type": "object"}, "example": example} for media_type, example in media_types.items()
    }
    return {"requestBody": {"required": True, "content": content}}
