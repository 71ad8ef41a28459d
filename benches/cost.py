"""What a request and a streamed token cost in CPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benches.measurements import BusRun, Level


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds, by process. What an idle Parley uses is taken off."""

    request: dict[str, float]
    """Of the busiest load without delay, by its requests: with their few frames of tokens."""
    token: dict[str, dict[str, float]]
    """By load: what a load of streams used beyond its requests, by its tokens."""
    whole: dict[str, dict[str, float]]
    """By load: all that it used, by its tokens."""


def cost(run: BusRun) -> Cost:
    """Nothing for a request where no load is without delay."""
    busiest = max((level for level in run.levels if not level.load.delay_s), key=lambda level: level.load.clients)
    requests = busiest.parley.outcome.figures.requests
    request = {name: s / requests for name, s in _beyond_idle(run, busiest).items()} if requests else {}
    token, whole = {}, {}
    for level in run.levels:
        got = level.parley.outcome.figures
        if level.load.delay_s and got.tokens:
            used = _beyond_idle(run, level)
            token[level.load.name] = {
                name: (s - got.requests * request.get(name, 0.0)) / got.tokens for name, s in used.items()
            }
            whole[level.load.name] = {name: s / got.tokens for name, s in used.items()}
    return Cost(request, token, whole)


def total(by_name: dict[str, float], names: Iterable[str]) -> float:
    """Of those processes together."""
    return sum(by_name.get(name, 0.0) for name in names)


def _beyond_idle(run: BusRun, level: Level) -> dict[str, float]:
    seconds = level.parley.outcome.figures.seconds
    return {name: s - run.idle_cpu.get(name, 0.0) * seconds for name, s in level.parley.cpu_s.items()}
