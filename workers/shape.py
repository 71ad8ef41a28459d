"""The shape that an answer is to have: what the model is told of it, and of an answer before that did not fit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from backplane.settings.answer_schemas import Way
from event_schemas.chat import ChatMessage, Misfit, TextPart
from event_schemas.generation import FinishReason
from workers.inference.port import InferenceRequest

_ORDER = (
    "Answer with JSON alone, without a fence, a comment or a word before or after it. It has to be valid by this JSON"
    " Schema:\n"
)
_AGAIN = "Write the whole answer again, such that it fits."


@dataclass(frozen=True, slots=True)
class Unfit:
    """What ``attempt`` answered, and why that does not fit."""

    attempt: int
    text: str
    misfit: Misfit


def shaped(request: InferenceRequest, way: Way, unfit: Unfit | None, *, takes_system: bool = True) -> InferenceRequest:
    """``request`` as the backend is to get it, which has a schema. ``takes_system``: the model takes instructions."""
    wanted = request.response_format
    assert wanted is not None
    messages = request.messages
    if way == "instruction":
        order = _ORDER + json.dumps(wanted.json_schema, ensure_ascii=False)
        messages = _instructed(messages, order) if takes_system else _asked(messages, order)
        wanted = None
    if unfit is not None:
        said = (ChatMessage(role="assistant", content=unfit.text),) if unfit.text else ()
        messages = (*messages, *said, ChatMessage(role="user", content=_complaint(unfit.misfit)))
    return replace(request, messages=messages, response_format=wanted)


def is_repairable(misfit: Misfit, finish_reason: FinishReason) -> bool:
    """Whether to ask for it again may help."""
    if finish_reason == "content_filter" or misfit.keyword == "deadline":
        return False
    return not _is_cut_off(misfit, finish_reason)


def verdict(misfit: Misfit, finish_reason: FinishReason, repairs: int) -> tuple[str, str]:
    """The reason and the detail of an answer's failure that ``repairs`` attempts did not repair."""
    if _is_cut_off(misfit, finish_reason):
        return "answer_cut_off", (
            "the answer came to the limit of its tokens before its JSON was whole; raise max_tokens, or bound the"
            " strings and arrays of the schema"
        )
    if misfit.keyword == "deadline":
        why = "could not be held against its schema in time; make the patterns of the schema simpler"
    elif misfit.keyword == "json":
        why = "is not JSON"
    else:
        why = f"does not fit its schema (`{misfit.keyword}`)"
    again = f", after it was asked for {repairs + 1} times" if repairs else ""
    return "answer_does_not_fit", f"the answer {why}{again}; `misfit` of the generation says where"


def _is_cut_off(misfit: Misfit, finish_reason: FinishReason) -> bool:
    return finish_reason == "length" and misfit.keyword == "json"


def _instructed(messages: tuple[ChatMessage, ...], order: str) -> tuple[ChatMessage, ...]:
    if messages and messages[0].role == "system":
        return (_with(messages[0], order), *messages[1:])
    return (ChatMessage(role="system", content=order), *messages)


def _asked(messages: tuple[ChatMessage, ...], order: str) -> tuple[ChatMessage, ...]:
    last = max((at for at, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        return (*messages, ChatMessage(role="user", content=order))
    return (*messages[:last], _with(messages[last], order), *messages[last + 1 :])


def _with(message: ChatMessage, order: str) -> ChatMessage:
    if isinstance(message.content, str):
        return message.model_copy(update={"content": f"{message.content}\n\n{order}"})
    return message.model_copy(update={"content": (*message.content, TextPart(text=order))})


def _complaint(misfit: Misfit) -> str:
    where = f"at {misfit.path} " if misfit.path else ""
    return f"That does not fit the JSON Schema: {where}`{misfit.keyword}` does not hold: {misfit.message}. {_AGAIN}"
