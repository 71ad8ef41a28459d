"""What backends can do. One table: what a prompt asks for is held against it before anything is queued."""

from __future__ import annotations

from typing import Literal

Capability = Literal[
    "system",  # instructions apart from what the user says
    "tools",  # asking for tools, and being told what they said
    "json",  # an answer that is JSON
    "json_schema",  # being held to a JSON schema of its answer; any other model is told of it in words
    "images",
    "reasoning_effort",
    "seed",
    "sampling",  # temperature, top_p
    "top_k",
    "min_p",
    "penalties",  # presence_penalty, frequency_penalty
    "logprobs",
    "usage",  # what was used, at the end of the stream; where it is missing it is estimated
]

_LOCAL: frozenset[Capability] = frozenset(("system", "seed", "sampling", "top_k", "min_p", "penalties", "usage"))
_OPENAI: frozenset[Capability] = frozenset(
    (
        "system",
        "tools",
        "json",
        "json_schema",
        "images",
        "reasoning_effort",
        "seed",
        "sampling",
        "penalties",
        "logprobs",
        "usage",
    )
)

_ANTHROPIC: frozenset[Capability] = frozenset(
    ("system", "tools", "json_schema", "images", "reasoning_effort", "sampling", "top_k", "usage")
)

CAPABILITIES: dict[str, frozenset[Capability]] = {
    "xllamacpp": _LOCAL | {"logprobs", "json_schema"},
    "llama-cpp-python": _LOCAL | {"json_schema"},
    "transformers": _LOCAL,
    "scripted": _LOCAL,
    "triton": _LOCAL,
    "openai": _OPENAI,
    "azure": _OPENAI,
    "anthropic": _ANTHROPIC,
    "bedrock": _ANTHROPIC,
    "vertex": _ANTHROPIC,
}
"""By backend; a pool's `without` takes from it what its models or its server cannot do."""

OPENAI_COMPATIBLE: frozenset[Capability] = frozenset(("top_k", "min_p"))
"""What servers that speak like OpenAI take beyond what OpenAI does."""
