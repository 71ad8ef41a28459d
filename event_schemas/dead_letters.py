"""Facts about dead letters: what became of a message that could not be handled. They stand in the platform's log."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from event_schemas.payload import Payload


class _AboutDeadLetter(Payload):
    letter_id: str = Field(description="`<topic>:<partition>:<ledger>:<entry>`, on the dead-letter topic")
    topic: str = Field(description="where it was published at first")
    reason: str = Field(description="why it was set aside")
    of_tenant_id: UUID | None = Field(default=None, description="whose it is, where that can be read")

    def subject(self) -> str:
        return f"dead_letter:{self.letter_id}"


class DeadLetterDiscarded(_AboutDeadLetter):
    """It is off the list for ever."""

    wire_name: ClassVar[str] = "dead_letter.discarded.v1"


class DeadLetterReplayed(_AboutDeadLetter):
    """It was published again where it came from."""

    wire_name: ClassVar[str] = "dead_letter.replayed.v1"

    replayed_as: str = Field(description="the subject that is under way now")
