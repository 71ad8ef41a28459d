"""What of a conversation a model is shown whose window does not take all of it. Decides; does no I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from event_schemas.chat import ChatMessage
from event_schemas.generation import WindowPolicy
from workers.inference.port import Counted

Count = Callable[[tuple[ChatMessage, ...]], Awaitable[Counted | None]]
"""How many tokens a model reads where it is given these; None where nobody knows how large its window is."""


@dataclass(frozen=True, slots=True)
class Said:
    """A conversation up to a prompt. ``system`` are the instructions that hold, ``own`` what the prompt itself adds."""

    before: tuple[ChatMessage, ...]
    own: tuple[ChatMessage, ...]
    system: ChatMessage | None = None
    summary: str | None = None
    covered: int = 0
    """How many messages before ``before`` the summary stands for."""
    forked: bool = False
    """Some of it was said in another conversation, under that one's key."""

    def with_its_question(self) -> Said:
        """The same, where ``own`` has the newest message of a user, also where the prompt says nothing of its own."""
        turns = turns_of(self.before)
        if not turns or any(message.role == "user" for message in self.own):
            return self
        before = tuple(message for turn in turns[:-1] for message in turn)
        return replace(self, before=before, own=(*turns[-1], *self.own))

    def without(self, turns: int) -> tuple[ChatMessage, ...]:
        """What the model reads without the oldest ``turns``."""
        kept = [message for turn in turns_of(self.before)[turns:] for message in turn]
        return (*self._instructions(), *kept, *self.own)

    def _instructions(self) -> tuple[ChatMessage, ...]:
        if self.summary is None:
            return () if self.system is None else (self.system,)
        summary = f"What was said before, in short:\n{self.summary}"
        system = summary if self.system is None else f"{self.system.text}\n\n{summary}"
        return (ChatMessage(role="system", content=system),)


@dataclass(frozen=True, slots=True)
class Fitted:
    messages: tuple[ChatMessage, ...]
    left_out: int
    """Messages that the model is not shown; a summary may stand for some."""
    window: int | None = None
    """Of the model, where it mattered."""


def room(window: int, answer_tokens: int) -> int:
    """Tokens of a window that a question may have: an answer may have as many as are wanted, and half of it at most."""
    return window - min(answer_tokens, window // 2)


def turns_of(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    """Each begins where a user speaks again, so that no call of a tool is parted from what the tool said."""
    turns: list[list[ChatMessage]] = []
    last = None
    for message in messages:
        if not turns or (message.role == "user" and last != "user"):
            turns.append([])
        turns[-1].append(message)
        last = message.role
    return turns


async def fitted(said: Said, policy: WindowPolicy, answer_tokens: int, count: Count) -> Fitted:
    """``said`` with as few of its oldest turns left out as leave room for an answer.

    The newest message of a user always stays, and what the prompt itself adds. Where even that is too much, it is for
    the engine to refuse it.
    """
    turns = turns_of(said.before)
    # Where the prompt says nothing of its own, or what tools said, it belongs to the turn before it.
    droppable = len(turns) if any(message.role == "user" for message in said.own) else len(turns) - 1
    counted = await count(said.without(0)) if policy != "fail" and droppable > 0 else None
    if counted is None:
        return Fitted(said.without(0), said.covered)
    most, dropped = room(counted.window, answer_tokens), 0
    if counted.tokens > most:
        least, dropped = 1, droppable
        while least < dropped:
            middle = (least + dropped) // 2
            fewer = await count(said.without(middle))
            assert fewer is not None, "it was known a moment ago"
            if fewer.tokens > most:
                least = middle + 1
            else:
                dropped = middle
    return Fitted(said.without(dropped), said.covered + sum(map(len, turns[:dropped])), counted.window)
