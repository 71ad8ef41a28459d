"""How much of a pool a tenant gets while more waits than can run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Priority = Literal["low", "normal", "high"]


class Share(BaseModel):
    """A tenant's setting. Each of its prompts carries the one that it was accepted with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    weight: int = Field(default=1, ge=1, le=100, description="tokens, in proportion to those of its priority's others")
    priority: Priority = Field(default="normal", description="a higher one goes first, in nine of ten turns")
