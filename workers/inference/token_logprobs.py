"""Logprobs as OpenAI writes them, and the servers and engines that do it likewise: pure translation.

Source: OpenAI API reference, "The chat completion chunk object", ``choices[].logprobs``.
"""

from __future__ import annotations

import math
from typing import Any

from event_schemas.generation import Parameters
from event_schemas.logprobs import TokenLogprob, TopLogprob

_NUL, _REPLACEMENT = "\0", "\N{REPLACEMENT CHARACTER}"


def wanted(parameters: Parameters) -> int | None:
    """How many of the likeliest tokens are wanted beside each one; None: no logprobs at all."""
    return parameters.top_logprobs or 0 if parameters.logprobs else None


def read(told: Any, most: int) -> list[TokenLogprob]:
    """The tokens of ``choices[].logprobs``, with at most ``most`` others in the place of each.

    Raises TypeError, ValueError, AttributeError, KeyError for what is none.
    """
    tokens = told.get("content") or told.get("refusal") if told else None
    return [_token(token, most) for token in tokens or ()]


def _token(told: Any, most: int) -> TokenLogprob:
    return {**_top(told), "top_logprobs": [_top(other) for other in (told.get("top_logprobs") or ())[:most]]}


def _top(told: Any) -> TopLogprob:
    token: str = told["token"]
    logprob = float(told["logprob"])
    if not math.isfinite(logprob):
        raise ValueError("a logprob is no number")
    # Postgres cannot store U+0000. Adding 0 makes -0.0 the same number everywhere.
    found: TopLogprob = {"token": token.replace(_NUL, _REPLACEMENT), "logprob": logprob + 0.0}
    written = told.get("bytes")
    if isinstance(written, list) and bytes(written) != found["token"].encode():
        found["bytes"] = written
    return found
