"""The endpoints that change batches. How one goes is the query API's to tell."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from backplane.web.problems import Problem, not_found, responses
from command_api.batch_file import BatchFile, UnusableFile
from command_api.batches import NotEnded
from command_api.conversations import ContentNotKept, NoSuch
from command_api.message_body import Text
from command_api.ports import Prompter, ports_of, settle, settle_erased

router = APIRouter(prefix="/v1", tags=["batches"])

_BATCH = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d16"
_LINE = (
    '{"custom_id": "first", "method": "POST", "url": "/v1/chat/completions",'
    ' "body": {"model": "gemma-3-270m", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}}'
)
_MEDIA_TYPES = ("application/jsonl", "application/x-ndjson", "application/octet-stream")
_FILE: dict[str, Any] = {
    "required": True,
    "description": "JSON Lines, one request for a chat completion a line, as OpenAI's batches have them",
    "content": {_MEDIA_TYPES[0]: {"schema": {"type": "string"}, "example": _LINE + "\n"}},
}
_METADATA = TypeAdapter[dict[str, str]](
    Annotated[
        dict[Annotated[Text, Field(min_length=1, max_length=64)], Annotated[Text, Field(max_length=512)]],
        Field(max_length=16),
    ]
)

BatchId = Annotated[UUID, Path(description="the batch, as the 202 named it")]


class BatchAccepted(BaseModel):
    """The file is durable. Each line of it will end: answered, or with an error."""

    id: UUID = Field(description="the batch", examples=[_BATCH])
    total: int = Field(description="how many lines it has", examples=[200])
    expires_at: datetime = Field(
        description="lines that have not begun by then fail with `batch_expired`", examples=["2026-03-02T12:00:00Z"]
    )
    url: str = Field(description="how it goes", examples=[f"/v1/batches/{_BATCH}"])
    results_url: str = Field(description="answers, as they come", examples=[f"/v1/batches/{_BATCH}/results"])
    errors_url: str = Field(description="lines without one", examples=[f"/v1/batches/{_BATCH}/errors"])


@router.post(
    "/batches",
    status_code=202,
    response_model=BatchAccepted,
    summary="Submit a batch",
    openapi_extra={"requestBody": _FILE},
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def submit_batch(
    request: Request,
    response: Response,
    principal: Prompter,
    completion_window: Annotated[Literal["24h"], Query(description="in which lines are begun")] = "24h",
    batch_metadata: Annotated[
        str | None,
        Header(max_length=16_384, description="yours, as a JSON object of strings; returned, read by nobody"),
    ] = None,
) -> BatchAccepted:
    """Its lines run in the idle time of their pools: while nobody's other prompts wait there. Limits hold for each."""
    ports = ports_of(request)
    sent_as = request.headers.get("content-type", "nothing in particular").partition(";")[0].strip().lower()
    if sent_as not in _MEDIA_TYPES:
        detail = f"The body was sent as {sent_as}: send JSON Lines, with `Content-Type: {_MEDIA_TYPES[0]}`."
        raise Problem(415, "unsupported-media-type", "Unsupported media type", detail)
    metadata = _metadata(batch_metadata)
    file = BatchFile(ports.settings.limits.batch_lines, ports.settings.limits.body_bytes)
    try:
        submitted = await ports.batches.submit(principal, file, request.stream(), metadata)
    except UnusableFile as unusable:
        errors = [{"field": f"line {line}" if line else "body", "message": what} for line, what in unusable.problems]
        detail = "; ".join(f"{one['field']}: {one['message']}" for one in errors)
        raise Problem(422, "unusable-file", "The file is refused", detail, errors=errors) from None
    except ContentNotKept:
        detail = "This tenant keeps no content, so answers would be gone before anybody has them."
        raise Problem(409, "content-not-kept", "Content is not kept", detail) from None
    except ClientDisconnect:
        raise Problem(400, "malformed-request", "Malformed request", "The body broke off.") from None
    url = f"/v1/batches/{submitted.id}"
    response.headers["Location"] = url
    await settle(request, principal, submitted.event_id)
    return BatchAccepted(
        id=submitted.id,
        total=submitted.total,
        expires_at=submitted.expires_at,
        url=url,
        results_url=f"{url}/results",
        errors_url=f"{url}/errors",
    )


@router.post(
    "/batches/{batch_id}/cancel",
    status_code=202,
    response_class=Response,
    summary="Cancel a batch",
    responses={202: {"description": "It will stop, if it has not ended"}, **responses(401, 403, 404, 422, 503)},
)
async def cancel_batch(request: Request, principal: Prompter, batch_id: BatchId) -> Response:
    """Lines that have not begun fail with `batch_cancelled`, and those that run are stopped. Answers stay."""
    try:
        event_id = await ports_of(request).batches.cancel(principal, batch_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    if event_id is not None:
        await settle(request, principal, event_id)
    return Response(status_code=202)


@router.delete(
    "/batches/{batch_id}",
    status_code=204,
    summary="Delete a batch",
    responses=responses(401, 403, 404, 409, 422, 503),
)
async def delete_batch(request: Request, principal: Prompter, batch_id: BatchId) -> None:
    """Removes it, and erases what its lines said and were answered. One that has not ended is to be cancelled first."""
    try:
        event_id, conversations = await ports_of(request).batches.delete(principal, batch_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except NotEnded:
        detail = "Lines of it have not ended. Cancel it, and delete it when its status is `cancelled`."
        raise Problem(409, "batch-not-ended", "The batch has not ended", detail) from None
    await settle_erased(request, principal, event_id, conversations, [])


def _metadata(text: str | None) -> dict[str, str]:
    try:
        return {} if text is None else _METADATA.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        errors = [{"field": "header.batch-metadata", "message": first["msg"].removeprefix("Value error, ")}]
        detail = "The header Batch-Metadata holds a JSON object: at most 16 strings of up to 512 characters."
        raise Problem(422, "invalid-request", "Invalid request", detail, errors=errors) from None
