"""Batches: files of prompts that run in the queue's idle time. Each line becomes a prompt like any other, or fails.

The file itself is in no command and no event: its lines are kept, sealed, until each has become a prompt.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from event_schemas.payload import Content, Payload, Written


class BatchContent(Content):
    metadata: dict[str, str] = Field(default_factory=dict, description="the client's own; returned, never read")


class BatchLineContent(Content):
    """A line of the file, as it is kept until it becomes a prompt."""

    custom_id: str = Field(description="what its client calls it")
    body: str = Field(description="JSON of a request for a chat completion")


class LineFailureContent(Content):
    custom_id: str | None = Field(description="what its client calls it; none: it was erased")
    message: str = Field(description="what is wrong, for people")


class LineFailuresContent(Content):
    lines: tuple[LineFailureContent, ...] = Field(description="of the event's `lines`, in their order")


class FailedLine(BaseModel):
    """A line that never became a prompt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: int = Field(ge=1)
    code: str = Field(description="stable, such as `invalid_request` or `batch_expired`")


class _AboutBatch(Payload):
    batch_id: UUID

    def subject(self) -> str:
        return f"batch:{self.batch_id}"


class _Submitted(_AboutBatch):
    user_id: UUID | None
    key_id: UUID
    total: int = Field(ge=1, description="how many lines it has")
    expires_at: AwareDatetime = Field(description="from then on no line is begun")
    content: Written = Field(description="a BatchContent")


class SubmitBatch(_Submitted):
    wire_name: ClassVar[str] = "batch.submit.v1"


class BatchSubmitted(_Submitted):
    """Its lines are kept; each will become a prompt, or fail."""

    wire_name: ClassVar[str] = "batch.submitted.v1"


class BatchLinesFailed(_AboutBatch):
    """Lines that will never become prompts."""

    wire_name: ClassVar[str] = "batch.lines_failed.v1"

    lines: tuple[FailedLine, ...] = Field(min_length=1, description="in the file's order")
    content: Written | None = Field(description="a LineFailuresContent; none: what would seal it was erased")


class CancelBatch(_AboutBatch):
    wire_name: ClassVar[str] = "batch.cancel.v1"


class BatchCancelled(_AboutBatch):
    """No line of it is begun any more, and what runs of it is stopped."""

    wire_name: ClassVar[str] = "batch.cancelled.v1"


class BatchExpired(_AboutBatch):
    """Its window is over: no line of it is begun any more. What runs goes on."""

    wire_name: ClassVar[str] = "batch.expired.v1"


class BatchCompleted(_AboutBatch):
    """Each of its lines has ended."""

    wire_name: ClassVar[str] = "batch.completed.v1"

    completed: int = Field(ge=0, description="how many lines were answered")
    failed: int = Field(ge=0, description="how many were not")


class DeleteBatch(_AboutBatch):
    wire_name: ClassVar[str] = "batch.delete.v1"


class BatchDeleted(_AboutBatch):
    """Its key and those of its lines' conversations are deleted: what was written there can be read by nobody."""

    wire_name: ClassVar[str] = "batch.deleted.v1"
