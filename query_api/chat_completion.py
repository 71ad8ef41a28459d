"""A finished generation as OpenAI's clients read it. Pure.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backplane.ports.database import Row


def chat_completion(row: Row) -> dict[str, Any]:
    """``row`` is a generation that completed, with its answer opened."""
    return {
        "id": f"chatcmpl-{row['id']}",
        "object": "chat.completion",
        "created": int(row["created_at"].timestamp()),
        "model": row["model"],
        "choices": [choice(0, row)],
        "usage": usage([row]),
    }


def choice(index: int, answer: Mapping[str, Any]) -> dict[str, Any]:
    """One answer: its ``content``, ``tool_calls``, ``reasoning``, ``logprobs`` and ``finish_reason``."""
    calls = [
        {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
        for one in answer["tool_calls"] or ()
    ]
    content = answer["content"] or (None if calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if answer["reasoning"]:
        message["reasoning_content"] = answer["reasoning"]
    logprobs = None
    if answer["logprobs"]:
        logprobs = {"content": [token_logprob(one) for tokens in answer["logprobs"] for one in tokens], "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer["finish_reason"]}


def usage(used: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all of ``used`` took together."""

    def total(name: str) -> int:
        return sum(one[name] or 0 for one in used)

    asked, said = total("input_tokens"), total("output_tokens")
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": total("cached_input_tokens")},
        "completion_tokens_details": {"reasoning_tokens": total("reasoning_tokens")},
    }


def token_logprob(one: Mapping[str, Any]) -> dict[str, Any]:
    return _likely(one) | {"top_logprobs": [_likely(other) for other in one["top_logprobs"]]}


def _likely(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": one["token"], "logprob": one["logprob"], "bytes": one.get("bytes") or [*one["token"].encode()]}
