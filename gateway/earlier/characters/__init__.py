"""The door for clients of a chat service with characters: users that sign up, chats, characters, documents."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.earlier.characters import characters, chats, documents, people
from gateway.earlier.characters.errors import SHAPE as SHAPE

router = APIRouter()
for _noun in (people, chats, characters, documents):
    router.include_router(_noun.router)
