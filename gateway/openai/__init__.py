"""The door for clients of OpenAI's API: https://platform.openai.com/docs/api-reference"""

from __future__ import annotations

from fastapi import APIRouter

from gateway.openai import chat, completions, embeddings, models
from gateway.openai.errors import SHAPE as SHAPE

router = APIRouter()
for _noun in (chat, completions, embeddings, models):
    router.include_router(_noun.router)
