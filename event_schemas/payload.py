"""What every command and event payload is."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

WIRE_NAME = re.compile(r"^(?P<base>[a-z][a-z_]*(?:\.[a-z][a-z_]*)+)\.v(?P<version>[1-9][0-9]*)$")


class Content(BaseModel):
    """What people and models wrote. It travels and rests as ``Written``, apart from the facts beside it."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Sealed(BaseModel):
    """Content under a data key of its conversation; without that key it is gone.

    The event log commits to ``commitment``, so that ``sealed`` can be taken away later.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    commitment: str = Field(pattern="^[0-9a-f]{64}$", description="HMAC-SHA-256 of the content, hexadecimal")
    sealed: str = Field(description="id of the key, nonce, and the content's JSON under AES-256-GCM; base64")


class Plain(BaseModel):
    """Content as releases wrote it that did not encrypt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    plain: dict[str, Any]


Written = Sealed | Plain
"""Content as it stands on the bus, in the log and in read models."""


class Payload(BaseModel):
    """Base of all payloads.

    Readers ignore fields that they do not know, so a release may add optional ones; anything else is a new version.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    wire_name: ClassVar[str] = ""
    """Stable name on the wire, such as ``generation.completed.v2``. Never a class path."""

    def subject(self) -> str:
        """The CloudEvents subject: what the payload is about, as ``kind:uuid``."""
        raise TypeError(f"{type(self).__name__} names no subject")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if cls.wire_name and not WIRE_NAME.match(cls.wire_name):
            raise TypeError(f"{cls.__name__}: {cls.wire_name!r} is not a wire name like 'thing.happened.v1'")


class AboutGeneration(Payload):
    """A payload about one generation: one prompt and the answer it gets."""

    generation_id: UUID

    def subject(self) -> str:
        return f"generation:{self.generation_id}"


class Usage(BaseModel):
    """Tokens that one attempt used."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_tokens: int = Field(ge=0, description="all of them, cached ones too")
    output_tokens: int = Field(ge=0, description="all of them, those of reasoning too")
    source: str = Field(
        pattern="^(provider|estimated)$",
        description="`provider`: the backend said so; `estimated`: counted from what was seen of a lost attempt",
    )
    cached_input_tokens: int = Field(default=0, ge=0, description="of the input: what the provider had in its cache")
    reasoning_tokens: int = Field(default=0, ge=0, description="of the output: what was thought and not said")
    cost_usd: Decimal | None = Field(default=None, ge=0, description="in US dollars; none: the price is not known")


PaidBy = Literal["platform", "tenant"]
"""Whose account an attempt goes on: a tenant pays where a provider key of its own is asked with."""


class Served(BaseModel):
    """What really served an attempt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pool: str
    backend: str
    model: str = Field(description="as the backend calls it")


class PersonaRef(BaseModel):
    """The persona that a prompt is asked as, and its version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    persona_id: UUID
    name: str = Field(description="as it was then; another may have it once this one is removed")
    version: int = Field(ge=1)
