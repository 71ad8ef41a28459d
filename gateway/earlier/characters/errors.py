"""What goes wrong, in the very words that its clients compare with."""

from __future__ import annotations

import re

from fastapi import Response

from backplane.web.problems import Problem, Shape
from gateway.earlier.details import detail_response, response

_DETAILS = {
    "unauthorized": (403, "Unauthorized"),
    "forbidden": (403, "Unauthorized"),
    "rate-limit-exceeded": (429, "Rate limit exceeded"),
}


def no_character() -> Problem:
    return Problem(404, "not-found", "Not found", "NPC not found")


def no_history() -> Problem:
    return Problem(404, "not-found", "Not found", "Chat history not found for this user")


def _answer(problem: Problem, request_id: str) -> Response:
    if (known := _DETAILS.get(problem.type)) is not None:
        return response(*known, problem, request_id)
    return detail_response(problem, request_id)


SHAPE = Shape(
    re.compile(r"/(signup|chat|create_npc|chat_npc|end_chat_session|rag|add_to_rag_db|reindex)(/|$)"), _answer
)
