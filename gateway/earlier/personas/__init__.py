"""The door for clients that talk to personas: a socket that streams tokens, plain text, JSON of a schema, vectors."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.earlier.personas import describing, embedding, socket, stats, text, toil

texts, objects = APIRouter(), APIRouter()
for _noun in (socket, text):
    texts.include_router(_noun.router)
for _noun in (toil, describing, embedding, stats):
    objects.include_router(_noun.router)
