"""The response object. Nothing is stored for it: all of it is read back from the generation that it is.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from backplane.ports.database import Row
from command_api.prompt import PromptBody
from event_schemas.chat import Piece, pieces
from gateway.asking import Asked
from gateway.problems import failed
from gateway.responses.output import Json, Output

QUEUED, IN_PROGRESS = "queued", "in_progress"

_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Reasons of an answer that is incomplete, by the generation's."""


def response_id(generation_id: UUID) -> str:
    return f"resp_{generation_id.hex}"


def conversation_id(id: UUID) -> str:
    return f"conv_{id.hex}"


def id_in(text: str, prefix: str) -> UUID:
    """The UUID that ``text`` names, with ``prefix`` or without. Raises ValueError."""
    return UUID(text.removeprefix(f"{prefix}_"))


def status_of(event: str, finish_reason: str | None) -> str:
    """A response's, by what its generation's last step is called."""
    return "incomplete" if event == "completed" and finish_reason in _CUT else event


@dataclass(frozen=True, slots=True)
class Response:
    """What a response says of itself whatever becomes of it. ``echo`` is what only its own request knows."""

    generation_id: UUID
    conversation: UUID
    previous: UUID | None
    model: str
    instructions: str | None
    parameters: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]
    format: Mapping[str, Any] | None
    metadata: Mapping[str, str]
    echo: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def asked(cls, asked: Asked, prompt: PromptBody, previous: UUID | None, echo: Mapping[str, Any]) -> Response:
        """One that was accepted just now."""
        format = prompt.response_format
        return cls(
            asked.generation_id,
            asked.conversation_id,
            previous,
            asked.model,
            prompt.system or None,
            prompt.parameters.model_dump(),
            [one.model_dump() for one in prompt.tools],
            None if format is None else format.model_dump(),
            prompt.metadata,
            echo,
        )

    @classmethod
    def read(cls, row: Row, previous: UUID | None) -> Response:
        """One that is read back: ``row`` is `readers.generation`'s, ``previous`` `readers.answer_before`'s."""
        prompt = row["asked"] or {}
        system = next((one["content"] for one in prompt.get("messages", ()) if one["role"] == "system"), None)
        return cls(
            row["id"],
            row["conversation_id"],
            previous,
            row["asked_model"] or row["model"],
            system if isinstance(system, str) and system else None,
            row["parameters"] or {},
            prompt.get("tools", ()),
            prompt.get("response_format"),
            row["metadata"] or {},
        )

    def document(self, status: str, output: Sequence[Json] = (), **ending: Any) -> Json:
        """How it stands. ``ending`` are `usage`, `error`, `incomplete_details` and the `model` that answered."""
        asked = self.parameters
        choice = asked.get("tool_choice")
        return {
            "id": response_id(self.generation_id),
            "object": "response",
            # When its id was made, to the second.
            "created_at": (self.generation_id.int >> 80) // 1000,
            "status": status,
            "background": None,
            "error": None,
            "incomplete_details": None,
            "instructions": self.instructions,
            "max_output_tokens": asked.get("max_tokens"),
            "model": self.model,
            "output": [*output],
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "previous_response_id": None if self.previous is None else response_id(self.previous),
            "conversation": {"id": conversation_id(self.conversation)},
            "reasoning": {"effort": asked.get("reasoning_effort"), "summary": None},
            "store": True,
            "temperature": asked.get("temperature"),
            "text": {"format": _format(self.format)},
            "tool_choice": {"type": "function", **choice} if isinstance(choice, Mapping) else choice or "auto",
            "tools": [_tool(one) for one in self.tools],
            "top_logprobs": asked.get("top_logprobs"),
            "top_p": asked.get("top_p"),
            "truncation": None,
            "usage": None,
            "metadata": {**self.metadata},
            **self.echo,
            **ending,
        }

    def ended(self, event: str, detail: Mapping[str, Any], output: Sequence[Json]) -> Json:
        """How it ended: ``event`` and ``detail`` are those of its last step, ``output`` ended with it."""
        finish_reason = detail.get("finish_reason")
        ending: dict[str, Any] = {"usage": _usage(detail["usage"]) if detail.get("usage") else None}
        if detail.get("served") is not None:
            ending["model"] = detail["served"]["model"]
        if event == "failed":
            ending["error"] = _error(detail)
        if event == "completed" and finish_reason in _CUT:
            ending["incomplete_details"] = {"reason": _CUT[finish_reason]}
        return self.document(status_of(event, finish_reason), output, **ending)


def found(row: Row, previous: UUID | None) -> Json:
    """A response as it stands, read back as by `Response.read`."""
    response, event = Response.read(row, previous), row["status"]
    if event in ("queued", "running"):
        return response.document(QUEUED if event == "queued" else IN_PROGRESS)
    detail = {
        "finish_reason": row["finish_reason"],
        "usage": None if row["usage_source"] is None or row["input_tokens"] is None else row,
        "served": None if row["served_model"] is None else {"model": row["served_model"]},
    }
    if event == "failed":
        detail |= {"reason": row["reason"], "detail": row["detail"]}
    items: list[Json] = []
    if not row["erased"]:
        items = Output.of(row["id"], row["attempt"], said_in(row), status_of(event, row["finish_reason"]))
    return response.ended(event, detail, items)


def said_in(answer: Row) -> list[Piece]:
    """The deltas of a finished answer as readers give it; none where there is nothing to be read."""
    if answer["delta_lengths"] is None:
        return []
    reasoning, calls, logprobs = answer["reasoning"] or "", answer["tool_calls"] or (), answer.get("logprobs") or ()
    return pieces(answer["content"], answer["delta_lengths"], reasoning, calls, logprobs)


def _usage(used: Mapping[str, Any]) -> Json:
    asked, said = used["input_tokens"] or 0, used["output_tokens"] or 0
    return {
        "input_tokens": asked,
        # Clients have to find the second one. Nobody counts it.
        "input_tokens_details": {"cached_tokens": used["cached_input_tokens"] or 0, "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": used["reasoning_tokens"] or 0},
        "total_tokens": asked + said,
    }


def _error(detail: Mapping[str, Any]) -> Json:
    """Its codes are of a closed list; Parley's own reason stands in the message."""
    problem = failed(detail)
    code = "invalid_prompt" if problem.status == 400 else "server_error"
    return {"code": code, "message": f"{detail['reason']}: {problem.detail}"}


def _format(asked: Mapping[str, Any] | None) -> Json:
    if asked is None:
        return {"type": "text"}
    if asked["json_schema"] is None:
        return {"type": "json_object"}
    shape = {"name": asked["name"], "schema": asked["json_schema"], "strict": asked["strict"]}
    return {"type": "json_schema", **shape}


def _tool(asked: Mapping[str, Any]) -> Json:
    return {"type": "function", **{name: asked.get(name) for name in ("name", "description", "parameters", "strict")}}
