"""Problems in Anthropic's words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from backplane.web.problems import Problem, not_found, unavailable
from gateway.anthropic.errors import answer
from gateway.anthropic.limits import in_their_words
from gateway.problems import BEGUN_AGAIN, failed, invalid


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (invalid("a", "is wrong"), 400, "invalid_request_error"),
        (Problem(422, "unsupported-by-model", "", ""), 400, "invalid_request_error"),
        (Problem(415, "unsupported-media-type", "", ""), 400, "invalid_request_error"),
        (Problem(401, "unauthorized", "", ""), 401, "authentication_error"),
        (Problem(403, "forbidden", "", ""), 403, "permission_error"),
        (not_found("conversation"), 404, "not_found_error"),
        (Problem(422, "unknown-model", "", ""), 404, "not_found_error"),
        (Problem(405, "method-not-allowed", "", ""), 405, "invalid_request_error"),
        (Problem(413, "too-large", "", ""), 413, "request_too_large"),
        (Problem(429, "rate-limit-exceeded", "", ""), 429, "rate_limit_error"),
        (Problem(500, "internal", "", ""), 500, "api_error"),
        (unavailable("database", "It does not answer."), 529, "overloaded_error"),
        (BEGUN_AGAIN, 529, "overloaded_error"),
        (failed({"reason": "context_length_exceeded", "detail": "too long"}), 400, "invalid_request_error"),
        (failed({"reason": "answer_does_not_fit", "detail": "no"}), 502, "api_error"),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_statuses_and_kinds(problem: Problem, status: int, kind: str) -> None:
    found = answer(problem, "r-1")
    told = json.loads(bytes(found.body))
    assert (found.status_code, told["error"]["type"]) == (status, kind)
    assert (told["type"], told["request_id"], found.headers["request-id"]) == ("error", "r-1", "r-1")
    assert found.headers.get("retry-after") == problem.headers.get("Retry-After")
    assert "x-should-retry" not in found.headers


@pytest.mark.parametrize(
    "problem", [Problem(409, "idempotency-key-reused", "", ""), Problem(429, "budget-exceeded", "", "")]
)
def test_what_is_no_use_to_ask_again_says_so(problem: Problem) -> None:
    assert answer(problem, "r-1").headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("field", "theirs"),
    [
        ("body.messages.0.content.blocks.0.image.source", "messages.0.content.0.image.source"),
        ("body.system.text", "system"),
        ("body.parameters.stop.0", "stop_sequences.0"),
        ("body.parameters.reasoning_effort", "thinking"),
        ("tools.3.parameters", "tools.3.input_schema"),
        ("body.response_format.json_schema", "output_config.format.schema"),
        ("query.limit", "limit"),
    ],
)
def test_fields_have_the_names_that_the_client_knows(field: str, theirs: str) -> None:
    errors: Any = [{"field": field, "message": "is wrong"}]
    told = json.loads(bytes(answer(Problem(422, "invalid-request", "", "", errors=errors), "r-1").body))
    assert told["error"]["message"] == f"{theirs}: is wrong"


def test_limits_have_anthropics_names_and_a_point_in_time() -> None:
    given = {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-tokens": "3",
        "x-ratelimit-reset-tokens": "90s",
        "Retry-After": "2",
    }
    assert in_their_words(given, datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)) == {
        "anthropic-ratelimit-requests-limit": "10",
        "anthropic-ratelimit-tokens-remaining": "3",
        "anthropic-ratelimit-tokens-reset": "2026-01-01T00:01:35Z",
        "Retry-After": "2",
    }
