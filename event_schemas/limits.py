"""Limits: how much may be asked, and what it may cost."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from event_schemas.payload import Payload

Dimension = Literal["platform", "tenant", "user", "key", "model", "persona"]


class Limits(BaseModel):
    """What a subject may use, any subset. None: no limit of this kind; 0: nothing at all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    requests_per_minute: int | None = Field(
        default=None, ge=0, le=1_000_000_000, description="prompts in any minute", examples=[60]
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=0, le=1_000_000_000_000, description="of prompts and answers, in any minute", examples=[100000]
    )
    concurrent: int | None = Field(
        default=None, ge=0, le=1_000_000_000, description="generations that have not ended", examples=[10]
    )
    usd_per_day: Decimal | None = Field(
        default=None, ge=0, le=1_000_000, decimal_places=9, description="US dollars a day, UTC", examples=["25.00"]
    )
    usd_per_month: Decimal | None = Field(
        default=None, ge=0, le=1_000_000, decimal_places=9, description="US dollars a month, UTC", examples=["500.00"]
    )
    warn_at_percent: int | None = Field(
        default=None, ge=1, le=100, description="a warning is due once so much of a limit is used", examples=[80]
    )


class _AboutLimits(Payload):
    dimension: Dimension
    subject_id: str = Field(max_length=200, description="a user's or key's id, a model's name; empty for a tenant")
    limits: Limits = Field(description="all of them; what is left out has no limit")

    def subject(self) -> str:
        return f"{self.dimension}:{self.subject_id}"


class SetLimits(_AboutLimits):
    wire_name: ClassVar[str] = "subject.set_limits.v1"


class LimitsSet(_AboutLimits):
    """From now on these hold for the subject, in place of any before."""

    wire_name: ClassVar[str] = "subject.limits_set.v1"


class Reserved(BaseModel):
    """What a prompt holds of its limits from its admission to its end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tokens: int = Field(ge=0, description="of the prompt and its answer, estimated")
    nano_usd: int = Field(ge=0, description="what they cost, in billionths of a US dollar")
