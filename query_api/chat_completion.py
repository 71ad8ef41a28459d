"""A finished generation as OpenAI's clients read it. Pure.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from typing import Any

from backplane.ports.database import Row


def chat_completion(row: Row) -> dict[str, Any]:
    """``row`` is a generation that completed, with its answer opened."""
    calls = [
        {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
        for one in row["tool_calls"] or ()
    ]
    content = row["content"] or (None if calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if row["reasoning"]:
        message["reasoning_content"] = row["reasoning"]
    logprobs = None
    if row["logprobs"]:
        logprobs = {"content": [_token(one) for tokens in row["logprobs"] for one in tokens], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": row["finish_reason"]}
    return {
        "id": f"chatcmpl-{row['id']}",
        "object": "chat.completion",
        "created": int(row["created_at"].timestamp()),
        "model": row["model"],
        "choices": [choice],
        "usage": {
            "prompt_tokens": row["input_tokens"],
            "completion_tokens": row["output_tokens"],
            "total_tokens": row["input_tokens"] + row["output_tokens"],
            "prompt_tokens_details": {"cached_tokens": row["cached_input_tokens"]},
            "completion_tokens_details": {"reasoning_tokens": row["reasoning_tokens"]},
        },
    }


def _token(one: dict[str, Any]) -> dict[str, Any]:
    return _likely(one) | {"top_logprobs": [_likely(other) for other in one["top_logprobs"]]}


def _likely(one: dict[str, Any]) -> dict[str, Any]:
    return {"token": one["token"], "logprob": one["logprob"], "bytes": one.get("bytes") or [*one["token"].encode()]}
