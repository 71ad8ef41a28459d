"""The door for clients of a chat service with accounts: signing in with a password, sessions with two providers."""

from __future__ import annotations

import re

from fastapi import APIRouter

from backplane.web.problems import Shape
from gateway.earlier.details import detail_response
from gateway.earlier.sessions import accounts, messages, provider_keys, sessions

router = APIRouter()
for _noun in (accounts, provider_keys, sessions, messages):
    router.include_router(_noun.router)

SHAPE = Shape(re.compile(r"/v1/(auth|gpt)/"), detail_response)
