"""JSON that a model wrote, passed on as it wrote it: its numbers may be larger than ours, and its keys double.

It fitted its schema when it was written, so here it is only put in its place.
"""

from __future__ import annotations

import orjson
from fastapi import Response

from query_api.views import ConversationWithMessages, GenerationView


def generation(view: GenerationView) -> GenerationView | Response:
    """As the API gives it."""
    if view.parsed is None:
        return view
    return _response(view.model_dump(mode="json") | {"parsed": orjson.Fragment(view.parsed)})


def conversation(view: ConversationWithMessages) -> ConversationWithMessages | Response:
    """As the API gives it."""
    if all(message.parsed is None for message in view.messages):
        return view
    messages = [
        message.model_dump(mode="json")
        | {"parsed": None if message.parsed is None else orjson.Fragment(message.parsed)}
        for message in view.messages
    ]
    return _response(view.model_dump(mode="json", exclude={"messages"}) | {"messages": messages})


def _response(content: dict[str, object]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
