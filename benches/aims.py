"""What is aimed at, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from benches.bus import Bus
from benches.cost import cost, total
from benches.event_tables import smaller_of
from benches.figures import Figures
from benches.measurements import BusRun, Level, Run
from benches.plan import CLIENTS
from benches.record import Rebuilt
from benches.tables import UNKNOWN, number, table

_MANY = 256
_KEPT_UP_S = 1.0
"""Projections keep up where nothing is left so many seconds after a load; one batch under way is always left."""

_FLAT = 1.2
"""What the most memory of a replay may become where the record is four times as long."""


@dataclass(frozen=True, slots=True)
class Aim:
    what: str
    unit: str
    wanted: dict[Bus, float]
    measured: Callable[[BusRun], float | None]
    """None where this run has no such load."""
    at_least: bool = False

    def verdict(self, run: BusRun) -> tuple[str, str]:
        """What was measured, and whether that is enough."""
        value, wanted = self.measured(run), self.wanted[run.bus]
        if value is None:
            return UNKNOWN, "not measured"
        missing = wanted - value if self.at_least else value - wanted
        if missing <= 0:
            return self.shown(value), "met"
        if missing == inf:
            return self.shown(value), "missed"
        return self.shown(value), f"missed by {self.shown(missing)} ({missing / wanted:.0%})"

    def shown(self, value: float) -> str:
        if value == inf:
            return "never"
        return f"{number(value) if abs(value) < 1000 else f'{value:,.0f}'}{self.unit}"

    def limit(self) -> str:
        values = list(dict.fromkeys(self.wanted.values()))
        return f"{'at least' if self.at_least else 'at most'} {' / '.join(map(self.shown, values))}"


def aims_table(run: Run) -> list[str]:
    rows = []
    for aim in AIMS:
        verdicts = [cell for bus_run in run.buses for cell in aim.verdict(bus_run)]
        rows.append([aim.what, aim.limit(), *verdicts])
    head = ["aim", "wanted", *(cell for bus_run in run.buses for cell in (bus_run.bus.label, ""))]
    return table("Aims", head, rows)


def _paced(run: BusRun, streams: int) -> Level | None:
    return next((each for each in run.levels if each.load.delay_s and each.load.clients == streams), None)


def _at_once(run: BusRun, clients: int) -> Level | None:
    return next((each for each in run.levels if not each.load.delay_s and each.load.clients == clients), None)


def _first_token(level: Level | None) -> float | None:
    if level is None:
        return None
    direct, parley = level.direct.outcome.figures.first_token, level.parley.outcome.figures.first_token
    return None if direct is None or parley is None else parley.p50 - direct.p50


def _of_wanted(level: Level | None) -> float | None:
    wanted = level.load.wanted_tokens_per_s if level is not None else None
    return None if level is None or wanted is None else _figures(level).tokens_per_s / wanted * 100


def _gap(level: Level | None) -> float | None:
    gap = _figures(level).gap if level is not None else None
    return None if gap is None else gap.p99


def _lag(level: Level | None) -> float | None:
    lag = level.parley.lag if level is not None else None
    return None if lag is None else lag.caught_up_s if lag.caught_up_s is not None else inf


def _token_us(run: BusRun) -> float | None:
    level = _paced(run, _MANY)
    found = None if level is None else cost(run).token.get(level.load.name)
    return None if found is None else total(found, run.ours) * 1e6


def _figures(level: Level) -> Figures:
    return level.parley.outcome.figures


def _replayed(run: BusRun) -> Rebuilt:
    return max((each for each in run.record.rebuilt if each.name == "all"), key=lambda each: each.record)


def _growth(run: BusRun) -> float | None:
    whole = _replayed(run)
    smaller = smaller_of(run, whole)
    return None if smaller is None else whole.peak_rss / smaller.peak_rss


def _requests(level: Level | None) -> float | None:
    return None if level is None else _figures(level).requests_per_s


def _same(value: float) -> dict[Bus, float]:
    return dict.fromkeys(Bus, value)


_FIRST_TOKEN = {Bus.postgres: 10.0, Bus.pulsar: 15.0}

AIMS = (
    Aim(
        "first token over the direct call, p50, 1 stream", " ms", _FIRST_TOKEN, lambda run: _first_token(_paced(run, 1))
    ),
    Aim("the same, 1 client without delay", " ms", _FIRST_TOKEN, lambda run: _first_token(_at_once(run, 1))),
    Aim(
        f"{_MANY} streams: tokens/s of what is wanted",
        " %",
        _same(95),
        lambda run: _of_wanted(_paced(run, _MANY)),
        at_least=True,
    ),
    Aim(f"{_MANY} streams: gap, p99", " ms", _same(60), lambda run: _gap(_paced(run, _MANY))),
    Aim(
        f"prompts/s of 20 tokens, closed loop of {CLIENTS}",
        "/s",
        _same(300),
        lambda run: _requests(_at_once(run, CLIENTS)),
        at_least=True,
    ),
    Aim(
        "projections keep up: nothing left after that loop",
        " s",
        _same(_KEPT_UP_S),
        lambda run: _lag(_at_once(run, CLIENTS)),
    ),
    Aim(f"CPU a streamed token at {_MANY} streams, all of Parley", " µs", _same(100), _token_us),
    Aim(
        "replay, `parley rebuild all`",
        " events/s",
        _same(50_000),
        lambda run: _replayed(run).lines_per_s,
        at_least=True,
    ),
    Aim("its peak memory over that of a quarter of the record", "×", _same(_FLAT), _growth),
)
