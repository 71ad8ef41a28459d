"""A limit that is nearly reached."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from event_schemas.payload import Payload


class LimitNearlyReached(Payload):
    """Most of a limit is used. Told once for each window of the limit."""

    wire_name: ClassVar[str] = "limit.nearly_reached.v1"

    dimension: str = Field(description="platform, tenant, user, key, model or persona")
    whose: str = Field(description="the id or the name of what the limit is set for, in that dimension")
    limit: str = Field(description="the limit's name")
    percent: int = Field(ge=0, description="how much of the limit is used, rounded down")
    used: int = Field(ge=0, description="in the limit's unit: requests, tokens, or billionths of a US dollar")
    of: int = Field(ge=0, description="the limit, in the same unit")

    def subject(self) -> str:
        return f"limit:{self.dimension}"
