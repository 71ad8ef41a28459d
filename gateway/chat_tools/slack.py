"""Slack's Events API and slash commands: https://docs.slack.dev/apis/events-api"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from command_api.chat_replies import Question
from command_api.chat_tools import Known
from gateway.chat_tools import receiving, signatures
from gateway.chat_tools.receiving import ChatToolId, field, mapping
from gateway.chat_tools.signatures import NotSigned

router = APIRouter(prefix="/chat-tools", tags=["chat tools"])

_FORM = "application/x-www-form-urlencoded"
_MENTION = re.compile(r"^(\s*<@[A-Z0-9]+(\|[^>]*)?>)+")
"""Of the app itself, at the beginning; others belong to what is asked."""

_BODIES: dict[str, object] = {
    "application/json": {
        "type": "event_callback",
        "event_id": "Ev0PV52K25",
        "event": {
            "type": "app_mention",
            "user": "U061F7AUR",
            "text": "<@U0LAN0Z89> Why is the sky blue?",
            "ts": "1515449522.000016",
            "channel": "C0LAN2Q65",
        },
    },
    _FORM: {
        "command": "/parley",
        "text": "Why is the sky blue?",
        "channel_id": "C0LAN2Q65",
        "user_name": "ada",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
    },
}


@router.post(
    "/{chat_tool_id}/slack",
    summary="Slack: what happened there, and slash commands",
    responses={200: {"content": {"application/json": {"example": {}}}}, **receiving.ERRORS},
    openapi_extra=receiving.body_of(_BODIES) | {"security": []},
)
async def receive_slack(
    request: Request,
    chat_tool_id: ChatToolId,
    timestamp: Annotated[
        str, Header(alias="X-Slack-Request-Timestamp", description="when it was signed, in seconds")
    ] = "",
    signature: Annotated[str, Header(alias="X-Slack-Signature", description="`v0=` and the signature")] = "",
) -> Response:
    """Signed by Slack. What is asked is durable before this is answered, and is asked once however often it comes."""
    body = await request.body()
    try:
        tool = await receiving.known(request, chat_tool_id, "slack")
        signatures.slack(tool.secrets["signing_secret"], timestamp, signature, body, time.time())
    except NotSigned:
        raise receiving.not_signed() from None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        return await _command(request, tool, body)
    payload = receiving.json_of(body)
    if payload.get("type") == "url_verification":
        return JSONResponse({"challenge": field(payload, "challenge")})
    if payload.get("type") == "event_callback":
        await _event(request, tool, payload)
    return JSONResponse({})


async def _event(request: Request, tool: Known, payload: Mapping[str, Any]) -> None:
    event = mapping(payload, "event")
    is_direct = event.get("type") == "message" and event.get("channel_type") == "im"
    if not (event.get("type") == "app_mention" or is_direct):
        return
    if "bot_id" in event or "subtype" in event:
        return  # what the app itself said comes, too, and so do changes of what was said
    text = html.unescape(_MENTION.sub("", receiving.asked(event.get("text")))).strip()
    if not text:
        return
    channel = field(event, "channel")
    thread = str(event.get("thread_ts") or field(event, "ts"))
    question = Question(text, {"channel": channel, "thread": thread})
    replies = receiving.ports_of(request).chat_replies
    await replies.ask(tool, field(payload, "event_id"), f"{channel}/{thread}", question)


async def _command(request: Request, tool: Known, body: bytes) -> Response:
    given = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
    if "ssl_check" in given:
        return JSONResponse({})
    text = receiving.asked(given.get("text"))
    if not text:
        say = f"Ask something: {given.get('command', '')} Why is the sky blue?"
        return JSONResponse({"response_type": "ephemeral", "text": say})
    trigger = field(given, "trigger_id")
    place = {"channel": field(given, "channel_id"), "asked_by": f"@{given.get('user_name', 'someone')}"}
    await receiving.ports_of(request).chat_replies.ask(tool, trigger, f"command/{trigger}", Question(text, place))
    # Nothing more is said in answer: the question is posted, and the answer in its thread.
    return Response(status_code=200)
