"""`/gpt-socket/<persona>`: each frame is a prompt, and its answer's tokens are frames up to one that says the end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import Any
from uuid import UUID

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

import command_api.ports
from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import StreamUnavailable
from backplane.security.principal import Principal
from backplane.web.problems import Problem, unavailable
from event_schemas.chat import text_of
from gateway import asking
from gateway.asking import BegunAgain
from gateway.earlier.answering import invalid
from gateway.earlier.callers import spoken
from gateway.earlier.personas import prompts
from gateway.earlier.personas.errors import line
from gateway.earlier.personas.prompts import CALLER, URN, Caller, Persona
from gateway.ports import ports_of
from gateway.problems import BEGUN_AGAIN, failed
from query_api.assembly import STARTED, TOKEN

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/gpt-socket")

_MOST_WAITING = 8
"""Prompts that were sent before the answer to an earlier one has ended."""


@router.websocket("/{persona}")
async def talk(websocket: WebSocket, principal: Caller, persona: Persona) -> None:
    """A client that goes away stops the answer that it waits for, and what it asked after that is not asked."""
    await prompts.known(websocket, principal, persona)
    await websocket.accept(spoken(websocket))
    conversation = Conversation(websocket, persona)
    waiting: deque[str] = deque()
    receiving = asyncio.ensure_future(_received(websocket))
    answering: asyncio.Future[None] | None = None
    try:
        while True:
            doing: list[asyncio.Future[Any]] = [receiving, *((answering,) if answering is not None else ())]
            await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                waiting.append(receiving.result())
                if len(waiting) > _MOST_WAITING:
                    raise _Unfit(1008, f"At most {_MOST_WAITING} prompts wait for an answer.")
                receiving = asyncio.ensure_future(_received(websocket))
            if answering is not None and answering.done():
                answering.result()
                answering = None
            if answering is None and waiting:
                answering = asyncio.ensure_future(conversation.answer(waiting.popleft()))
    except WebSocketDisconnect:
        return
    except _Unfit as unfit:
        await websocket.close(unfit.code, unfit.reason)
    finally:
        left: list[asyncio.Future[Any]] = [receiving, *((answering,) if answering is not None else ())]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _Unfit(Exception):
    """What a client sent ends the connection; ``code`` is one of RFC 6455."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def _received(websocket: WebSocket) -> str:
    """Raises WebSocketDisconnect, _Unfit."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    text: str | None = message.get("text")
    if text is None:
        raise _Unfit(1003, "Send prompts as text.")
    return text


class Conversation:
    """What is said on one socket, until a prompt names another session."""

    def __init__(self, websocket: WebSocket, persona: str) -> None:
        self._websocket = websocket
        self._persona = persona
        self.id: UUID | None = None

    async def answer(self, text: str) -> None:
        """Raises WebSocketDisconnect."""
        try:
            await self._tell(text)
        except Problem as problem:
            self._count(problem)
            await self._websocket.send_text(line(problem))
        except (BusError, DatabaseUnavailable, StreamUnavailable, WrappingUnavailable) as error:
            logger.warning("unavailable", extra={"action": "request_unavailable", "cause": str(error)})
            await self._websocket.send_text(line(unavailable("platform", "Parley does not answer now. Try again.")))
        is_bare = self.id is None or ports_of(self._websocket).doors.bare_end
        await self._websocket.send_text("<END>" if is_bare else f"<END {URN}{self.id}>")

    async def _tell(self, text: str) -> None:
        # A socket may outlast its key.
        principal = await CALLER(self._websocket)
        named, text = prompts.session_in_front(text)
        if not text.strip():
            raise invalid("prompt", "is empty")
        body = prompts.to_persona(self._persona, text, named or self.id)
        asked = await asking.ask(self._websocket, principal, body)
        self.id = asked.conversation_id
        async with asking.stopped_without_reader(self._websocket, principal, [asked]):
            steps = await asking.follow_asked(self._websocket, principal, asked)
            try:
                async with aclosing(asking.told(steps)) as told:
                    async for step in told:
                        if step.event == TOKEN:
                            if said := text_of(step.deltas):
                                await self._websocket.send_text(said)
                        elif step.event not in (STARTED, "completed"):
                            raise failed(step.detail)
            except BegunAgain:
                raise BEGUN_AGAIN from None

    def _count(self, problem: Problem) -> None:
        principal: Principal | None = getattr(self._websocket.state, "principal", None)
        if principal is not None and problem.status < 500:
            command_api.ports.ports_of(self._websocket).refusals.count(principal, problem.type)
