"""How batches go, and what came of their lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from backplane.ports.database import Row
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import not_found, responses, unavailable
from query_api import batch_readers
from query_api.freshness import NoSuch, ProjectionsLag
from query_api.service import QueryPorts

router = APIRouter(prefix="/v1", tags=["batches"])

Reader = Annotated[Principal, Depends(requires("conversations.use"))]
BatchId = Annotated[UUID, Path(description="the batch, as the 202 named it")]

JSON_LINES = "application/jsonl"

_BATCH = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d16"
_TIME = "2026-03-01T12:00:00.123456Z"
_RESULT = (
    f'{{"id":"{_BATCH}-1","custom_id":"first","response":{{"status_code":200,'
    '"request_id":"01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11","body":{"object":"chat.completion","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}]}},"error":null}\n'
)
_ERROR = (
    f'{{"id":"{_BATCH}-2","custom_id":"second","response":null,'
    '"error":{"code":"batch_expired","message":"It was not begun before the batch\'s window was over."}}\n'
)

Status = Literal["in_progress", "cancelling", "finalizing", "completed", "cancelled", "expired"]


class RequestCounts(BaseModel):
    total: int = Field(description="lines of the file", examples=[200])
    completed: int = Field(description="that were answered", examples=[120])
    failed: int = Field(description="that were not, and will not be: `errors` says why", examples=[1])
    running: int = Field(description="that are prompts in the queue, or run", examples=[16])


class BatchView(BaseModel):
    id: UUID = Field(description="the batch", examples=[_BATCH])
    status: Status = Field(
        description="`cancelling` and `finalizing`: cancelled, or its window is over, and lines still run; the last"
        " three are final",
        examples=["in_progress"],
    )
    endpoint: Literal["/v1/chat/completions"] = Field(
        description="what its lines ask for", examples=["/v1/chat/completions"]
    )
    completion_window: Literal["24h"] = Field(description="in which lines are begun", examples=["24h"])
    request_counts: RequestCounts = Field(description="how its lines go")
    metadata: dict[str, str] | None = Field(
        description="yours, as submitted; null where it was erased", examples=[{"run": "nightly"}]
    )
    user_id: UUID | None = Field(
        description="who submitted it; null: a key without a user", examples=["01990f6e-0000-7000-8000-000000000001"]
    )
    created_at: datetime = Field(description="when it was submitted", examples=[_TIME])
    expires_at: datetime = Field(description="from then on no line is begun", examples=["2026-03-02T12:00:00.123456Z"])
    cancelled_at: datetime | None = Field(description="when it was cancelled", examples=[None])
    expired_at: datetime | None = Field(description="when its window was over with lines left", examples=[None])
    ended_at: datetime | None = Field(description="when its last line ended", examples=[None])
    results_url: str = Field(description="answers, as they come", examples=[f"/v1/batches/{_BATCH}/results"])
    errors_url: str = Field(description="lines without one", examples=[f"/v1/batches/{_BATCH}/errors"])

    @classmethod
    def of(cls, row: Row) -> BatchView:
        url = f"/v1/batches/{row['id']}"
        counts = {
            "total": row["total"],
            "completed": row["completed"],
            "failed": row["failed"],
            "running": row["begun"] - row["completed"] - (row["failed"] - row["never_begun"]),
        }
        derived: dict[str, Any] = {
            "status": _status(row),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "request_counts": counts,
            "results_url": f"{url}/results",
            "errors_url": f"{url}/errors",
        }
        return cls.model_validate(row | derived)


class BatchPage(BaseModel):
    batches: list[BatchView] = Field(description="newest first")
    next_cursor: UUID | None = Field(
        description="`cursor` of the next page; null where this is the last", examples=[None]
    )


@router.get(
    "/batches", response_model=BatchPage, summary="Batches, newest first", responses=responses(401, 403, 422, 503)
)
async def list_batches(
    request: Request,
    principal: Reader,
    cursor: Annotated[UUID | None, Query(description="where the page begins: `next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="most batches of a page")] = 20,
) -> BatchPage:
    """A member sees its own; an admin those of the whole tenant."""
    page = await batch_readers.batches(_ports(request), principal, before=cursor, limit=limit)
    return BatchPage(batches=[BatchView.of(row) for row in page.batches], next_cursor=page.next)


@router.get(
    "/batches/{batch_id}",
    response_model=BatchView,
    summary="One batch",
    responses=responses(401, 403, 404, 422, 503),
)
async def get_batch(request: Request, principal: Reader, batch_id: BatchId) -> BatchView:
    """What its counts say is so: a line counts once, as soon as its end is recorded."""
    with _answers():
        return BatchView.of(await batch_readers.batch(_ports(request), principal, batch_id))


def _lines(example: str) -> dict[int | str, dict[str, Any]]:
    shown = {"description": "one JSON object a line", "content": {JSON_LINES: {"example": example}}}
    return {200: shown, **responses(401, 403, 404, 422, 503)}


@router.get(
    "/batches/{batch_id}/results",
    response_class=StreamingResponse,
    summary="Answers of a batch",
    responses=_lines(_RESULT),
)
async def get_batch_results(request: Request, principal: Reader, batch_id: BatchId) -> StreamingResponse:
    """Of the lines that were answered by now, in the file's order; each in the shape of OpenAI's batch output."""
    with _answers():
        lines = await batch_readers.results(_ports(request), principal, batch_id)
    return StreamingResponse(lines, media_type=JSON_LINES)


@router.get(
    "/batches/{batch_id}/errors",
    response_class=StreamingResponse,
    summary="Lines of a batch without an answer",
    responses=_lines(_ERROR),
)
async def get_batch_errors(request: Request, principal: Reader, batch_id: BatchId) -> StreamingResponse:
    """Lines whose generation failed or was cancelled, then those that never were prompts."""
    with _answers():
        lines = await batch_readers.errors(_ports(request), principal, batch_id)
    return StreamingResponse(lines, media_type=JSON_LINES)


def _status(row: Row) -> Status:
    if row["cancelled_at"] is not None:
        return "cancelling" if row["ended_at"] is None else "cancelled"
    if row["expired_at"] is not None:
        return "finalizing" if row["ended_at"] is None else "expired"
    return "in_progress" if row["ended_at"] is None else "completed"


def _ports(request: Request) -> QueryPorts:
    ports: QueryPorts = request.app.state.query
    return ports


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except ProjectionsLag:
        raise unavailable(
            "projections", "The read models are behind; whether this is there cannot be said yet."
        ) from None
