"""The doors, and which of them are open."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import APIRouter

from backplane.settings.doors import DoorSettings
from backplane.web.problems import Shape
from gateway import openai


class Door(NamedTuple):
    """One protocol: its routes, and how it tells of what goes wrong."""

    router: APIRouter
    shape: Shape


def of(settings: DoorSettings) -> list[Door]:
    """Those that are open."""
    return [Door(openai.router, openai.SHAPE)] if settings.openai else []
