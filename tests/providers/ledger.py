"""What each key was asked, what became of it, and what the provider bills."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["running", "finished", "refused", "over_limit", "failed", "broken", "aborted", "stopped"]
"""``refused``: the request or its key was not right; ``over_limit``: the limiter said no; ``failed``: a scripted error
status; ``broken``: the server cut or spoilt its answer; ``aborted``: the client went away first; ``stopped``: the
server stopped while it ran."""


@dataclass
class Entry:
    """One request."""

    key: str
    tag: str | None
    """The header ``x-client-request-id``, else ``x-request-tag``, else the API's own field for the end user."""
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """The request's JSON; None where it is none."""
    at: float
    """When it came, by the server's clock in seconds."""
    status: int | None = None
    """None: no status was sent."""
    outcome: Outcome = "running"
    fault: str | None = None
    """The fault of its script."""
    input_tokens: int = 0
    """Billed. 0 for refusals and errors."""
    output_tokens: int = 0
    """Billed: what was really sent, reasoning and tool calls included. An answer that does not stream is billed whole
    as soon as its first byte is sent."""
    reported: Any = None
    """The usage object that the answer named, as it stood on the wire."""
    text: str = ""
    """The visible text that was sent."""
    last_write_at: float = 0.0
    ended_at: float | None = None
    noticed_s: float | None = None
    """For ``aborted``: seconds from the last write to the moment when the server knew that its client was gone."""


@dataclass
class Account:
    """All of one key."""

    key: str
    asked: list[Entry] = field(default_factory=list)
    running: int = 0
    """Requests being answered now: admitted, and their response not over."""
    peak: int = 0
    """The most that ever ran at once."""

    def with_outcome(self, outcome: Outcome) -> list[Entry]:
        """Its requests that ended so."""
        return [entry for entry in self.asked if entry.outcome == outcome]

    @property
    def over_limit(self) -> int:
        """Requests that the limiter refused."""
        return len(self.with_outcome("over_limit"))

    @property
    def aborted(self) -> list[Entry]:
        """Requests whose client went away before the end."""
        return self.with_outcome("aborted")

    @property
    def input_tokens(self) -> int:
        """Billed."""
        return sum(entry.input_tokens for entry in self.asked)

    @property
    def output_tokens(self) -> int:
        """Billed."""
        return sum(entry.output_tokens for entry in self.asked)


class Ledger:
    """Accounts by key; a key nobody added has one too, once it asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Waits until anything is noted."""
        await self._changed.wait()

    def __getitem__(self, key: str) -> Account:
        return self._accounts.setdefault(key, Account(key))

    @property
    def entries(self) -> list[Entry]:
        """All requests of all keys, in the order in which they came."""
        return sorted((entry for account in self._accounts.values() for entry in account.asked), key=lambda e: e.at)

    def tagged(self, tag: str) -> list[Entry]:
        """The requests of one tag, in the order in which they came."""
        return [entry for entry in self.entries if entry.tag == tag]

    def open(self, key: str, tag: str | None, path: str, headers: Mapping[str, str], body: Any) -> Entry:
        """Notes a request."""
        entry = Entry(key, tag, path, headers, body, at=self._clock())
        self[key].asked.append(entry)
        self._tell()
        return entry

    def run(self, entry: Entry) -> None:
        """From now on, it counts as running. ``close`` must follow."""
        account = self[entry.key]
        account.running += 1
        account.peak = max(account.peak, account.running)
        self._tell()

    def wrote(self, entry: Entry) -> None:
        """Something of its response was just written."""
        entry.last_write_at = self._clock()
        self._tell()

    def close(self, entry: Entry, outcome: Outcome, *, ran: bool) -> None:
        """Notes how it ended; of several, the first one counts."""
        if entry.outcome != "running":
            return
        entry.outcome = outcome
        entry.ended_at = self._clock()
        if outcome == "aborted":
            entry.noticed_s = entry.ended_at - (entry.last_write_at or entry.at)
        if ran:
            self[entry.key].running -= 1
        self._tell()

    def as_json(self) -> dict[str, Any]:
        """Everything but keys' prompts, for a server that is another process."""
        return {
            key: {
                "running": account.running,
                "peak": account.peak,
                "over_limit": account.over_limit,
                "asked": [
                    {name: value for name, value in asdict(entry).items() if name not in {"headers", "body"}}
                    for entry in account.asked
                ],
            }
            for key, account in self._accounts.items()
        }

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
