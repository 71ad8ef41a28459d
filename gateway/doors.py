"""The doors, and which of them are open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter

from backplane.settings.doors import DoorSettings
from backplane.web.problems import Shape
from gateway import anthropic, chat_tools, openai, responses
from gateway.earlier import characters, filling, personas, sessions
from gateway.earlier.personas import errors as persona_errors

_openai = APIRouter()
_openai.include_router(openai.router)
_openai.include_router(responses.router)


class Door(NamedTuple):
    """One protocol: its routes, and how it tells of what goes wrong."""

    router: APIRouter
    shapes: Sequence[Shape] = ()
    """None: as our own API does."""


def of(settings: DoorSettings) -> list[Door]:
    """Those that are open. Where two have the same path, the first one that wants a request has it."""
    found = [
        (settings.anthropic, Door(anthropic.router, anthropic.SHAPES)),
        (settings.openai, Door(_openai, [openai.SHAPE])),
        (settings.chat_tools, Door(chat_tools.router)),
        (settings.personas, Door(personas.texts, [persona_errors.TEXTS])),
        (settings.personas, Door(personas.objects, [persona_errors.OBJECTS])),
        (settings.prompt, Door(filling.router, [filling.SHAPE])),
        (settings.characters, Door(characters.router, [characters.SHAPE])),
        (settings.sessions, Door(sessions.router, [sessions.SHAPE])),
    ]
    return [door for is_open, door in found if is_open]
