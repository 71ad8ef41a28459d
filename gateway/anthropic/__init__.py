"""The door for clients of Anthropic's API: https://platform.claude.com/docs/en/api"""

from __future__ import annotations

from fastapi import APIRouter

from gateway.anthropic import messages, models
from gateway.anthropic.errors import SHAPES as SHAPES

router = APIRouter()
for _noun in (messages, models):
    router.include_router(_noun.router)
