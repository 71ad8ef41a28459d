"""What a provider refuses or fails with, before any API puts it into words of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "invalid",
    "unsupported_version",
    "context",
    "key",
    "forbidden",
    "not_found",
    "rate_limit",
    "quota",
    "internal",
    "unavailable",
    "overloaded",
]


@dataclass(eq=False)
class Problem(Exception):
    """A request that gets an error status."""

    kind: Kind
    message: str
    param: str | None = None
    """The parameter that is not right, as OpenAI names it."""
    code: str | None = None
    """OpenAI's ``code``, where it is not the usual one of the kind."""
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def scripted(fault: str, model: str, retry_after_s: float | None) -> Problem:
    """The problem of a script's status fault."""
    match fault:
        case "400":
            problem = Problem("invalid", "Invalid value for 'messages'.", "messages", "invalid_value")
        case "401":
            problem = Problem("key", "Incorrect API key provided.")
        case "403":
            problem = Problem("forbidden", f"The key may not use the model {model}.")
        case "404":
            problem = Problem("not_found", f"The model `{model}` does not exist or you do not have access to it.")
        case "context":
            problem = Problem("context", "This model's maximum context length is exceeded.", "messages")
        case "429":
            problem = Problem("rate_limit", f"Rate limit reached for {model}.")
        case "quota":
            problem = Problem("quota", "You exceeded your current quota, please check your plan and billing details.")
        case "500":
            problem = Problem("internal", "The server had an error while processing your request.")
        case "503":
            problem = Problem("unavailable", "The server is currently overloaded. Please try again later.")
        case "529":
            problem = Problem("overloaded", "Overloaded")
        case _:
            raise ValueError(f"{fault!r} is no status")
    problem.retry_after_s = retry_after_s
    return problem
