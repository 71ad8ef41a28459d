from __future__ import annotations

import pytest

from workers.inference.port import BackendUnavailable, RateLimited, RequestRefused
from workers.inference.triton_errors import triton_error


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "Error generating stream: The decoder prompt (length 3000) is longer than the maximum model length of "
            "2048. Make sure that `max_model_len` is no smaller than the number of text tokens.",
            ("3000 tokens", "2048"),
        ),
        ("Prompt length of 3000 is longer than the maximum model length of 2048.", ("2048",)),
        ("This model's maximum context length is 2048 tokens. However, you requested 3000 tokens", ("2048",)),
        (
            "Executor failed process requestId 1 due to the following error: Encountered an error when fetching new "
            "request: Prompt length (3000) exceeds maximum input length (2048). Set log level to info",
            ("3000 tokens", "2048"),
        ),
    ],
)
@pytest.mark.parametrize("code", [None, "INTERNAL", "INVALID_ARGUMENT"])
def test_a_prompt_that_is_too_long_is_known_by_its_words(code: str | None, said: str, words: tuple[str, ...]) -> None:
    refused = triton_error(code, said, model="m", url="u")
    assert (type(refused), refused.reason) == (RequestRefused, "context_length_exceeded")
    assert all(word in str(refused) for word in words)


@pytest.mark.parametrize(
    ("code", "said", "kind", "reason"),
    [
        ("UNAVAILABLE", "Request for unknown model: 'm' is not found", RequestRefused, "unknown_model"),
        ("INVALID_ARGUMENT", "Request for unknown model: 'm' is not found", RequestRefused, "unknown_model"),
        (None, "Request for unknown model: 'm' is not found", RequestRefused, "unknown_model"),
        (None, "Request for unknown model: 'm' version 1 is not at ready state", BackendUnavailable, "model_not_ready"),
        ("UNAVAILABLE", "GRPC server is shutting down and has stopped", BackendUnavailable, "model_not_ready"),
        (None, "[request id: 1] unexpected inference input 'x' for model 'm'", BackendUnavailable, "model_changed"),
        (
            None,
            "[request id: 1] expected number of inputs between 1 and 4 but got 5 inputs for model 'm'. Got input(s) []",
            BackendUnavailable,
            "model_changed",
        ),
        (None, "inference input 'x' data-type is 'INT64', but model 'm' expects", BackendUnavailable, "model_changed"),
        (
            None,
            "unexpected shape for input 'x' for model 'm'. Expected [1], got [2]",
            BackendUnavailable,
            "model_changed",
        ),
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", RateLimited, "rate_limited"),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'k'", BackendUnavailable, "provider_restricted"),
        (
            None,
            "Error generating stream: 'NoneType' object has no attribute 'lora_name'",
            RequestRefused,
            "invalid_request",
        ),
        (None, "'NoneType' object has no attribute 'x'", BackendUnavailable, "engine_failed"),
        ("UNKNOWN", "", BackendUnavailable, "engine_failed"),
        ("UNIMPLEMENTED", "", BackendUnavailable, "provider_unreachable"),
    ],
)
def test_known_words_come_before_the_code(code: str | None, said: str, kind: type[Exception], reason: str) -> None:
    error = triton_error(code, said, model="m", url="u")
    assert (type(error), error.reason) == (kind, reason)


def test_what_the_server_said_stays_out_of_the_message() -> None:
    for code in (None, "INTERNAL", "INVALID_ARGUMENT", "UNAVAILABLE"):
        assert "secret" not in str(triton_error(code, "failed at the words: secret", model="m", url="u"))
