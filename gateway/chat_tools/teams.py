"""Outgoing webhooks of Microsoft Teams, which take one answer, at once:
https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-outgoing-webhook"""

from __future__ import annotations

import asyncio
import html
import re
import time
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from command_api.chat_replies import ChatReplies, Question, Standing
from command_api.chat_tools import Known
from gateway.chat_tools import receiving, signatures
from gateway.chat_tools.asking import MAY_NOT_ASK
from gateway.chat_tools.growing import Growing
from gateway.chat_tools.receiving import ChatToolId, field, mapping
from gateway.chat_tools.signatures import NotSigned
from gateway.chat_tools.splitting import parts

router = APIRouter(prefix="/chat-tools", tags=["chat tools"])

ANSWER_S = 4.5
"""Teams waits for five to ten seconds."""
_LIMIT = 10_000
"""Teams takes about 28 KB of UTF-16."""
_POLL_S = 0.05
_MORE = "more"
_STILL = "Mention me with **more** for what follows."
_MENTION = re.compile(r"<at\b[^>]*>.*?</at>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<br\s*/?>|</p>|</div>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")

_EXAMPLE = {
    "type": "message",
    "id": "1485983408511",
    "timestamp": "2026-03-01T12:00:00.000Z",
    "text": "<at>Parley</at> Why is the sky blue?",
    "conversation": {"id": "19:253b1f341670408fb6fe51050b6e5ceb@thread.skype;messageid=1485983194839"},
}


@router.post(
    "/{chat_tool_id}/teams",
    summary="Microsoft Teams: what was said to an outgoing webhook",
    responses={
        200: {"content": {"application/json": {"example": {"type": "message", "text": "It scatters."}}}},
        **receiving.ERRORS,
    },
    openapi_extra=receiving.body_of({"application/json": _EXAMPLE}) | {"security": []},
)
async def receive_teams(
    request: Request,
    chat_tool_id: ChatToolId,
    authorization: Annotated[str, Header(description="`HMAC` and the signature")] = "",
) -> Response:
    """Signed by Teams. What there is of the answer after some seconds, and how to have the rest: Teams lets nothing be
    edited."""
    ends = time.monotonic() + ANSWER_S
    body = await request.body()
    try:
        tool = await receiving.known(request, chat_tool_id, "teams")
        signatures.teams(tool.secrets["security_token"], authorization, body)
        message = receiving.json_of(body)
        signatures.sent_recently(field(message, "timestamp"), time.time())
    except NotSigned:
        raise receiving.not_signed() from None
    text, thread = _text(message.get("text")), field(mapping(message, "conversation"), "id")
    if not text:
        return _told("Ask something.")
    replies = receiving.ports_of(request).chat_replies
    if text.lower().strip(".!") == _MORE:
        standing = await replies.newest(tool, thread)
        if standing is None:
            return _told("There is no answer here to go on with.")
        return await _answer(request, tool, standing, standing.told, ends)
    event = field(message, "id")
    await replies.ask(tool, event, thread, Question(text, {}))
    standing = await _prompt(replies, tool, event, ends)
    return await _answer(request, tool, standing, 0, ends)


async def _prompt(replies: ChatReplies, tool: Known, event: str, ends: float) -> Standing | None:
    """What became of it, once it is a prompt or none; None where neither came in time."""
    while time.monotonic() < ends:
        standing = await replies.standing(tool, event)
        if standing is not None and (standing.generation_id or standing.refusal):
            return standing
        # Whoever took it may be another process, so there is nothing of ours to wait on.
        await asyncio.sleep(_POLL_S)
    return None


async def _answer(request: Request, tool: Known, standing: Standing | None, at: int, ends: float) -> Response:
    """Part ``at`` of the answer, or what there is of it when time is over."""
    if standing is None or not (standing.generation_id or standing.refusal):
        return _told(f"I have yet to begin. {_STILL}")
    if standing.refusal is not None or standing.generation_id is None:
        return _told(standing.refusal or "")
    replies = receiving.ports_of(request).chat_replies
    asker = await replies.asker(tool.tenant_id, standing.key_id, standing.user_id)
    if asker is None:
        return _told(MAY_NOT_ASK)
    growing = Growing.of(request.app.state.query, asker, standing.generation_id)
    with suppress(TimeoutError):
        await asyncio.wait_for(growing.follow(), max(0.0, ends - time.monotonic()))
    shown = parts(growing.text, _LIMIT)
    if at >= len(shown):
        return _told("That was all.")
    is_last = at == len(shown) - 1
    if growing.has_ended or not is_last:
        await replies.tell(tool, standing.chat_reply_id, at + 1)
    return _told(shown[at] if growing.has_ended and is_last else f"{shown[at]}\n\n{_STILL}")


def _text(given: object) -> str:
    """What was asked, without the mention and the marks of HTML."""
    text = _MENTION.sub(" ", receiving.asked(given))
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", text))).replace("\xa0", " ").strip()


def _told(text: str) -> Response:
    return JSONResponse({"type": "message", "text": text})
