"""People ask in Slack, Discord and Microsoft Teams, and are answered there."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.chat_tools import discord, slack, teams

router = APIRouter()
for each in (slack, discord, teams):
    router.include_router(each.router)

__all__ = ["router"]
