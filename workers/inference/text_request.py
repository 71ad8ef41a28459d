"""What a local engine that takes and gives text alone is asked for."""

from __future__ import annotations

from workers.inference.port import InferenceRequest, RequestRefused

BASE_MODEL_TOKENS = 512
"""Longest answer of a model without a chat template where the prompt says nothing: such a model was never taught to
end, and would fill its whole window."""


def check_text_request(request: InferenceRequest) -> None:
    """Raises RequestRefused ``invalid_request``, ``unsupported``."""
    limit = request.parameters.max_tokens
    if limit is not None and limit < 1:
        raise RequestRefused("invalid_request", f"max_tokens is {limit}; ask for at least 1")
    if any(message.images or message.tool_calls or message.tool_call_id for message in request.messages):
        # A prompt that brings such is refused at the door; a conversation may have it from another model.
        raise RequestRefused("unsupported", "the conversation has images or tool calls, which it does not take")


def most_tokens(request: InferenceRequest, *, window: int, chat_template: bool) -> int:
    """The longest answer that the prompt asks for, or that its model would give."""
    return min(request.parameters.max_tokens or (window if chat_template else BASE_MODEL_TOKENS), window)


def context_length_exceeded(tokens: int | None, window: int) -> RequestRefused:
    counted = "more tokens than fit" if tokens is None else f"{tokens} tokens"
    return RequestRefused("context_length_exceeded", f"the prompt has {counted}, the context window {window}")
