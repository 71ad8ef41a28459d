"""What the server does with a request: what it answers, how fast, and what goes wrong."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

StatusFault = Literal["400", "401", "403", "404", "context", "429", "quota", "500", "503", "529"]
"""The request is answered with this status. ``context``: 400, the prompt is longer than the model's window; ``quota``:
the account has no money left."""

EarlyFault = Literal["cut_early", "hang_early"]
"""Before the response's headers: the connection is cut, or nothing ever comes."""

StreamFault = Literal["hang", "stall", "cut", "reset", "truncated", "stream_error", "no_end"]
"""After the headers:

* ``hang``: no token ever comes, though the opening events do.
* ``stall``: after ``Script.after`` tokens nothing more comes.
* ``cut``: after ``after`` tokens the connection is closed in the middle of the body (FIN without its last chunk).
* ``reset``: the same with a TCP reset, which may take with it what was not read yet.
* ``truncated``: after ``after`` tokens half an event is sent, and the body then ends as if it were whole.
* ``stream_error``: after ``after`` tokens the provider's error object comes in the stream, which then ends.
* ``no_end``: all tokens come, then the body ends without finish reason, usage and closing event.
"""

Fault = StatusFault | EarlyFault | StreamFault
FAULTS: frozenset[str] = frozenset(name for kind in get_args(Fault) for name in get_args(kind))
STATUS_FAULTS: frozenset[str] = frozenset(get_args(StatusFault))

ReportedUsage = Literal["right", "short", "negative", "null", "missing", "strings"]
"""What the answer says of its tokens. ``short``: half of the output tokens that were sent, rounded down; ``missing``:
there is no usage at all; ``strings``: the numbers are in quotes."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call of the answer. What is not said comes from the request's tools, in their order."""

    name: str | None = None
    arguments: Mapping[str, object] | None = None
    """None: the least that the tool's schema allows."""
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one answer does. The default answers 16 words at once."""

    words: int | None = None
    """How many words the model wants to say, before ``max_tokens``. None: 16, or none where it calls tools."""
    text: str | None = None
    """What it says, in place of ``words`` generated ones."""
    reasoning: int = 0
    """Words of reasoning before the answer: ``reasoning_content`` or a thinking block."""
    calls: tuple[Call, ...] = ()
    """Tools that it calls where the request has tools and does not forbid to call them."""
    interleaved: bool = False
    """The argument deltas of several calls alternate, as compatible servers send them. Not on Anthropic's wire."""
    cached: int = 0
    """Input tokens read from the provider's cache, at most all of them."""
    cache_written: int = 0
    """Input tokens written to the cache, at most all that are left."""
    usage: ReportedUsage = "right"

    first_token_s: float = 0.0
    """Seconds between the opening of the response and its first token."""
    token_s: float = 0.0
    """Seconds between two tokens."""

    fault: Fault | None = None
    after: int = 4
    """Tokens sent before a fault in the stream. An answer that is shorter fails where it would close."""
    retry_after: float | None = None
    """Seconds for the ``retry-after`` of an error status. None: without that header."""

    comments: int = 0
    """SSE comment lines before the first token, as OpenRouter sends while it waits."""
    crlf: bool = False
    """Lines end in CR LF."""
    split: Literal["line", "character"] | None = None
    """Every event comes in two TCP segments: cut in the middle of a line, or within a character of several bytes."""
    bundle: int = 1
    """How many events go into one write."""

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"{self.fault!r} is no fault: {', '.join(sorted(FAULTS))}")
        if self.bundle < 1:
            raise ValueError("bundle is at least 1")


@dataclass
class Playbook:
    """Which script the next request gets: one that waits for its key, one that waits for anybody, or dice."""

    default: Script
    mix: Mapping[str, float]
    """Fault → its share of the requests, between 0 and 1."""
    dice: random.Random
    waiting: deque[Script] = field(default_factory=deque)
    waiting_for: dict[str, deque[Script]] = field(default_factory=dict)
    of_key: dict[str, Script] = field(default_factory=dict)
    """What a key always gets."""

    def __post_init__(self) -> None:
        if unknown := set(self.mix) - FAULTS:
            raise ValueError(f"{', '.join(sorted(unknown))}: no fault, which are {', '.join(sorted(FAULTS))}")
        if sum(self.mix.values()) > 1:
            raise ValueError("the shares of the mix exceed 1")

    def queue(self, *scripts: Script, key: str | None = None) -> None:
        """The next requests (of ``key``) get ``scripts``, one each."""
        (self.waiting if key is None else self.waiting_for.setdefault(key, deque())).extend(scripts)

    def next(self, key: str) -> Script:
        """The script for the request of ``key`` that is being admitted."""
        if own := self.waiting_for.get(key):
            return own.popleft()
        if self.waiting:
            return self.waiting.popleft()
        default = self.of_key.get(key, self.default)
        drawn = self.dice.random()
        for fault, share in self.mix.items():
            drawn -= share
            if drawn < 0:
                return replace(default, fault=fault, after=self.dice.randrange(1, 9))  # type: ignore[arg-type]
        return default
