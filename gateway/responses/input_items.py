"""What a response was asked with, read back: the way to it through its conversation, as items. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from backplane.ports.database import Row
from gateway.responses.output import Json, Output
from gateway.responses.response import said_in


def input_items(messages: Sequence[Row], generation_id: UUID) -> list[Json]:
    """Oldest first. ``messages`` are those of `readers.conversation`, with the answer ``generation_id``.

    Instructions are none: they were of one response only.
    """
    by_id = {one["id"]: one for one in messages}
    way: list[Row] = []
    at = by_id[generation_id]["parent_message_id"]
    while at in by_id:
        way.append(by_id[at])
        at = by_id[at]["parent_message_id"]
    return [item for message in reversed(way) for item in _items(message)]


def _items(message: Row) -> Iterator[Json]:
    if message["id"] == message["generation_id"]:
        status = "completed" if message["status"] == "completed" else "cancelled"
        if not message["erased"]:
            yield from Output.of(message["id"], message["attempt"], said_in(message), status)
        return
    hexadecimal, content = message["id"].hex, message["content"]
    if message["role"] == "system" and not isinstance(content, list):
        return
    if message["role"] == "tool":
        output = _text(content)
        head = {"id": f"fco_{hexadecimal}", "type": "function_call_output", "status": "completed"}
        yield {**head, "call_id": message["tool_call_id"], "output": output}
        return
    head = {"id": f"msg_{hexadecimal}", "type": "message", "status": "completed", "role": message["role"]}
    if message["role"] == "assistant":
        if content:
            part = {"type": "output_text", "text": _text(content), "annotations": [], "logprobs": []}
            yield {**head, "content": [part]}
        for number, call in enumerate(message["tool_calls"] or ()):
            called = {"call_id": call["id"], "name": call["name"], "arguments": call["arguments"]}
            yield {"id": f"fc_{hexadecimal}_{number}", "type": "function_call", "status": "completed", **called}
        return
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    yield {**head, "content": [_part(one) for one in parts]}


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part["type"] == "text")


def _part(part: Row) -> Json:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    return {"type": "input_image", "image_url": part["url"], "detail": part["detail"] or "auto"}
