"""Whether the projections do their work, and if not, why."""

from __future__ import annotations

STARTING = "projections have not joined their subscription yet"


class Readiness:
    """What keeps this process from being ready, by what it concerns."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {"start": STARTING}

    def reasons(self) -> list[str]:
        """For people; empty when ready. Carries no content."""
        return list(self._reasons.values())

    def block(self, what: str, reason: str) -> None:
        self._reasons[what] = reason

    def clear(self, what: str) -> None:
        self._reasons.pop(what, None)
