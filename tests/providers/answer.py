"""What the model answers to a request, before any API's wire puts it into frames.

One word is one token: a run of characters other than white space. A tool call costs one token for its name and one for
each delta of its arguments. Input tokens are the words of all texts in the messages, the system prompt and tool results
included; images, tool calls and tool definitions cost nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.providers.script import Call, Script

_VOCABULARY = [
    "a",
    "ocean",
    "river",
    "söll",
    "the",
    "märz",
    "under",
    "light",
    "naïve",
    "stone",
    "über",
    "café",
    "東京",
    "quiet",
    "green",
    "paper",
    "seven",
    "łódź",
    "walks",
    "sings",
    "between",
    "mountain",
    "🌍",
    "window",
    "bread",
    "then",
    "slowly",
    "counts",
    "every",
    "small",
    "数",
    "garden,",
    "however;",
    "winter.",
    "house",
]
_ARGUMENT_DELTA = 12
"""Characters of a tool call's arguments in one delta."""


@dataclass(frozen=True)
class Tool:
    """A tool that a request offers."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a valid request asks for, whichever API it came by."""

    model: str
    stream: bool
    texts: tuple[str, ...]
    """All texts of the conversation."""
    most_tokens: int | None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """``none``, ``auto``, ``required``, or ``=`` and the name of the one that must be called."""
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    """The answer must be JSON of this schema."""
    include_usage: bool = True
    logprobs: int | None = None
    """How many of the likeliest tokens it wants to see in the place of each one; None: no logprobs at all."""

    @property
    def input_tokens(self) -> int:
        """Words of all texts."""
        return sum(words_of(text) for text in self.texts)


@dataclass(frozen=True)
class Piece:
    """What one delta carries: one token."""

    kind: Literal["reasoning", "text", "call", "arguments"]
    text: str
    """For ``call``, the tool's name."""
    call: int = 0
    """Which of the answer's calls."""
    call_id: str = ""


@dataclass(frozen=True)
class Counted:
    """Tokens, as they really are."""

    input: int
    cached: int
    cache_written: int
    output: int
    reasoning: int


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    pieces: tuple[Piece, ...]
    ended: Literal["stop", "stop_sequence", "length", "tool_calls"]
    stop_sequence: str | None
    counted: Counted

    def said(self, kind: Literal["reasoning", "text"]) -> str:
        """All that it says of one kind."""
        return "".join(piece.text for piece in self.pieces if piece.kind == kind)

    def calls(self) -> list[tuple[str, str, str]]:
        """Id, name and arguments of its tool calls."""
        made = [(piece.call, piece.call_id, piece.text) for piece in self.pieces if piece.kind == "call"]
        return [
            (call_id, name, "".join(p.text for p in self.pieces if p.kind == "arguments" and p.call == call))
            for call, call_id, name in made
        ]


def words_of(text: str) -> int:
    """How many tokens a text is."""
    return len(text.split())


def answer(asked: Asked, script: Script, *, call_prefix: str) -> Answer:
    """The answer: the same to the same conversation, seed and script. ``call_prefix`` begins the ids of tool calls."""
    dice = random.Random(hashlib.sha256(repr((asked.seed, asked.texts)).encode()).digest())
    calls = _calls(asked, script, dice, call_prefix)
    reasoning = [Piece("reasoning", text) for text in _spoken(dice, script.reasoning)]
    text, stop_sequence = _until_stop(_text(asked, script, dice, bool(calls)), asked.stops)
    said = [Piece("text", token) for token in _tokens(text)]
    pieces = [*reasoning, *said, *_called(calls, script.interleaved)]
    ended: Literal["stop", "stop_sequence", "length", "tool_calls"] = "stop"
    if asked.most_tokens is not None and len(pieces) > asked.most_tokens:
        pieces, ended, stop_sequence = pieces[: asked.most_tokens], "length", None
    elif stop_sequence is not None:
        ended = "stop_sequence"
    elif calls:
        ended = "tool_calls"
    cached = min(script.cached, asked.input_tokens)
    counted = Counted(
        input=asked.input_tokens,
        cached=cached,
        cache_written=min(script.cache_written, asked.input_tokens - cached),
        output=len(pieces),
        reasoning=sum(piece.kind == "reasoning" for piece in pieces),
    )
    return Answer(tuple(pieces), ended, stop_sequence, counted)


def likeliest(token: str, count: int) -> list[tuple[str, float]]:
    """``token`` with its logprob, then with theirs what else was likely in its place: ``count`` with it, at least one.

    It is the likeliest.
    """
    dice = random.Random(token)
    others = dice.sample([word for word in _VOCABULARY if word != token.strip()], max(count - 1, 0))
    logprob = 0.0
    found = []
    for one in (token, *others):
        logprob -= dice.uniform(0.01, 2)
        found.append((one, logprob))
    return found


def least(schema: Mapping[str, Any]) -> Any:
    """The least instance that a JSON Schema allows, of the few keywords that tools are described with."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    match schema.get("type", "object"):
        case "string":
            return "words"
        case "integer":
            return 7
        case "number":
            return 0.5
        case "boolean":
            return True
        case "array":
            return [least(schema.get("items", {"type": "string"}))]
        case _:
            properties = schema.get("properties", {})
            return {name: least(properties.get(name, {})) for name in schema.get("required", properties)}


def _calls(asked: Asked, script: Script, dice: random.Random, prefix: str) -> list[tuple[str, str, str]]:
    if not asked.tools or asked.tool_choice == "none":
        return []
    wanted: Sequence[Call] = script.calls
    offered = asked.tools
    if asked.tool_choice.startswith("="):
        offered = tuple(tool for tool in asked.tools if tool.name == asked.tool_choice[1:])
    if not wanted and asked.tool_choice != "auto":
        wanted = [Call()]
    if not asked.parallel:
        wanted = wanted[:1]
    made = []
    for number, call in enumerate(wanted):
        tool = next((tool for tool in offered if tool.name == call.name), offered[number % len(offered)])
        arguments = least(tool.schema) if call.arguments is None else call.arguments
        call_id = call.id or f"{prefix}{dice.getrandbits(96):024x}"
        made.append((call_id, call.name or tool.name, json.dumps(arguments, ensure_ascii=False)))
    return made


def _called(calls: list[tuple[str, str, str]], interleaved: bool) -> list[Piece]:
    deltas = [
        [
            Piece("arguments", arguments[at : at + _ARGUMENT_DELTA], number)
            for at in range(0, len(arguments), _ARGUMENT_DELTA)
        ]
        for number, (_, _, arguments) in enumerate(calls)
    ]
    starts = [Piece("call", name, number, call_id) for number, (call_id, name, _) in enumerate(calls)]
    if not interleaved:
        return [piece for start, of_call in zip(starts, deltas, strict=True) for piece in (start, *of_call)]
    longest = max(map(len, deltas), default=0)
    return starts + [of_call[at] for at in range(longest) for of_call in deltas if at < len(of_call)]


def _text(asked: Asked, script: Script, dice: random.Random, calls: bool) -> str:
    if script.text is not None:
        return script.text
    if asked.schema is not None and not calls:
        return json.dumps(least(asked.schema), ensure_ascii=False)
    return "".join(_spoken(dice, script.words if script.words is not None else 0 if calls else 16))


def _spoken(dice: random.Random, words: int) -> list[str]:
    return [("" if at == 0 else " ") + dice.choice(_VOCABULARY) for at in range(words)]


def _tokens(text: str) -> list[str]:
    """Each word with the white space before it; what is left at the end goes with the last one."""
    tokens = re.findall(r"\s*\S+", text)
    if tokens:
        tokens[-1] += text[sum(map(len, tokens)) :]
    return tokens


def _until_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    found = min(((at, stop) for stop in stops if (at := text.find(stop)) >= 0), default=None)
    return (text, None) if found is None else (text[: found[0]], found[1])
