"""How much is measured."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from benches.bus import Bus
from benches.load import Load

TOKENS_PER_S = 50
PROMPT_TOKENS = 20
CLIENTS = 32
"""Of the closed loop without delay."""

_MESSAGES = 500
_BURST_S = 3.0


class Plan(BaseModel):
    model_config = ConfigDict(frozen=True)

    buses: list[Bus]
    loads: list[Load]
    burst_s: float = Field(description="seconds in which prompts are accepted as fast as they can be")
    messages: int = Field(description="over the bus alone, in each way")
    events: int = Field(description="projected and replayed")

    @property
    def steps(self) -> int:
        """How often a run tells what it does."""
        pulsar = 1 if Bus.pulsar in self.buses else 0
        return pulsar + len(self.buses) * (8 + 2 * len(self.loads) + 2)


def plan(buses: Sequence[Bus], streams: Sequence[int], tokens: int, seconds: float, events: int) -> Plan:
    """Streams at 50 tokens/s each, then prompts of 20 tokens without delay, by one client and by many."""
    paced = [Load(clients=n, tokens=tokens, delay_s=1 / TOKENS_PER_S, seconds=seconds) for n in streams]
    at_once = [Load(clients=n, tokens=PROMPT_TOKENS, delay_s=0, seconds=seconds) for n in (1, CLIENTS)]
    return Plan(
        buses=list(buses), loads=paced + at_once, burst_s=min(_BURST_S, seconds), messages=_MESSAGES, events=events
    )


def quick(buses: Sequence[Bus]) -> Plan:
    """All of it, but too little for figures."""
    loads = [
        Load(clients=2, tokens=5, delay_s=1 / TOKENS_PER_S, seconds=1),
        Load(clients=2, tokens=PROMPT_TOKENS, delay_s=0, seconds=1),
    ]
    return Plan(buses=list(buses), loads=loads, burst_s=0.5, messages=20, events=400)
