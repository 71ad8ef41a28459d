"""The doors, and which of them are open."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import APIRouter

from backplane.settings.doors import DoorSettings
from backplane.web.problems import Shape
from gateway import chat_tools, openai


class Door(NamedTuple):
    """One protocol: its routes, and how it tells of what goes wrong."""

    router: APIRouter
    shape: Shape | None = None
    """None: as our own API does."""


def of(settings: DoorSettings) -> list[Door]:
    """Those that are open."""
    doors = [(settings.openai, Door(openai.router, openai.SHAPE)), (settings.chat_tools, Door(chat_tools.router))]
    return [door for is_open, door in doors if is_open]
