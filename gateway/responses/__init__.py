"""Responses at OpenAI's door: https://platform.openai.com/docs/api-reference/responses"""

from __future__ import annotations

from gateway.responses.routes import router as router
