"""What is asked of a backend while it is measured."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field

_LEAST_RAMP_S = 0.5
_LEAST_WARM_UP_S = 1.5


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Load(_Message):
    """``clients`` ask again and again, each its next prompt as soon as it has the last answer."""

    clients: int = Field(ge=1, description="answers under way at a time")
    tokens: int = Field(ge=1, description="tokens of an answer")
    delay_s: float = Field(ge=0, description="seconds from token to token; 0: all at once")
    seconds: float = Field(gt=0, description="length of the window that counts")

    @property
    def name(self) -> str:
        if self.delay_s:
            return f"{self.clients} stream{'s' * (self.clients > 1)}"
        return f"{self.clients} client{'s' * (self.clients > 1)}, no delay"

    @property
    def answer_s(self) -> float:
        """Seconds that one answer takes at least."""
        return (self.tokens - 1) * self.delay_s

    @property
    def ramp_s(self) -> float:
        """Seconds over which the clients begin, one after another, so that they do not go in step."""
        return max(_LEAST_RAMP_S, self.answer_s)

    @property
    def warm_up_s(self) -> float:
        """Seconds from the first client's beginning to the window."""
        return max(_LEAST_WARM_UP_S, 1.5 * self.ramp_s)

    @property
    def wanted_tokens_per_s(self) -> float | None:
        """What comes out where nothing costs any time; None where the backend makes no pauses."""
        return self.clients / self.delay_s if self.delay_s else None

    @property
    def script(self) -> str:
        """For ``metadata.script`` of the scripted backend."""
        return json.dumps({"count": self.tokens, "delay_s": self.delay_s})


class Target(_Message):
    """A running Parley."""

    host: str
    port: int
    key: str = Field(repr=False, description="an API key that may prompt")


class Order(_Message):
    """What the load process is told, as JSON on its standard input."""

    load: Load
    target: Target | None = Field(description="none: the backend is called in that process, without Parley")


PROMPT = "Say something."
