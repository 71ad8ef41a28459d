"""What an attempt costs: prices by model, backend and day, from one TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from pathlib import Path
from typing import TypeGuard

from event_schemas.payload import Usage

PACKAGED = Path(__file__).parent / "prices.toml"
"""The table of those who set no `prices_file`."""

_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
"""Sums of money are never rounded here: who shows them knows to how many places."""

_MOST = Decimal(1_000_000)
_MOST_PLACES = 12

_SHOWN = 5
"""Mistakes of a file that are listed; beyond them a number tells more than a list."""

_ANY = "*"


class UnusablePrices(ValueError):
    """A price file that cannot be used. The message says which file, where in it, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Price:
    """What ``model`` costs from a day on, in USD per million tokens."""

    model: str
    """A whole name; or, with ``*`` at its end, all that begin so."""
    backend: str | None
    """None: whichever backend it was asked through."""
    since: date
    """It holds from midnight UTC of this day on."""
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """None: as ``input``."""
    reasoning: Decimal | None = None
    """None: as ``output``."""
    source: str = ""

    def cost(self, usage: Usage) -> Decimal:
        """USD, exact."""
        # A provider that counts cached or reasoning tokens beside the others must not make the rest negative.
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        reasoning = min(usage.reasoning_tokens, usage.output_tokens)
        total = Decimal(0)
        for tokens, price in (
            (usage.input_tokens - cached, self.input),
            (cached, self.input if self.cached_input is None else self.cached_input),
            (usage.output_tokens - reasoning, self.output),
            (reasoning, self.output if self.reasoning is None else self.reasoning),
        ):
            total = _EXACT.fma(price, tokens, total)
        return _plain(_EXACT.scaleb(total, -6))


def _plain(number: Decimal) -> Decimal:
    """The same number, with no zeros at its end and no positive exponent."""
    return Decimal(f"{_EXACT.normalize(number):f}")


class PriceTable:
    """Prices of many models. One file of the operator's replaces the packaged one; they are not merged."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self.prices = tuple(sorted(prices, key=lambda price: price.since, reverse=True))
        self._newest_first: dict[tuple[str, str | None], list[Price]] = {}
        for price in self.prices:
            self._newest_first.setdefault((price.model, price.backend), []).append(price)
        beginnings = {price.model for price in self.prices if price.model.endswith(_ANY)}
        self._beginnings = sorted(beginnings, key=len, reverse=True)

    @classmethod
    def load(cls, path: Path | None = None) -> PriceTable:
        """The table in the file ``path``; None: the packaged one. Raises UnusablePrices."""
        return cls(_read(PACKAGED if path is None else path))

    def cost(self, *, model: str, backend: str, usage: Usage, at: datetime) -> Decimal | None:
        """What ``usage`` cost in USD, for an attempt that began ``at``; None: nobody knows, which is not zero.

        It is exact and without trailing zeros. Print it with ``f"{cost:f}"``: ``str`` writes the smallest as 5E-9. The
        cost of an estimated usage is an estimate too. Raises ValueError where ``at`` has no time zone.
        """
        price = self.price(model=model, backend=backend, at=at)
        return None if price is None else price.cost(usage)

    def price(self, *, model: str, backend: str, at: datetime) -> Price | None:
        """The price that holds ``at``; None: unknown. Raises ValueError where ``at`` has no time zone.

        A whole name beats a beginning, a longer beginning a shorter one; for one name, a price of the backend beats one
        of any. What is chosen so decides alone: before its first date the price is unknown, whatever others say.
        """
        if at.utcoffset() is None:
            raise ValueError("`at` has no time zone, so that nobody knows which day it is")
        day = at.astimezone(UTC).date()
        for name in (model, *(one for one in self._beginnings if model.startswith(one[:-1]))):
            for asked in (backend, None):
                if dated := self._newest_first.get((name, asked)):
                    return next((price for price in dated if price.since <= day), None)
        return None


_WHAT_TO_WRITE = {
    "model": 'write the name at the backend, such as "gpt-4o-mini", or how names begin, such as "gpt-4o-*"',
    "backend": 'write the backend of a pool, such as "openai", or leave it out where the price is the same at all',
    "from": "write a day alone and without quotes, such as from = 2025-01-01; it begins at midnight UTC",
    "input": 'write USD per million tokens, such as input = "2.50"',
    "output": 'write USD per million tokens, such as output = "10"',
    "cached_input": "write USD per million tokens, or leave it out where cached input costs the same as other input",
    "reasoning": "write USD per million tokens, or leave it out where reasoning costs the same as other output",
    "source": "write where the price is from, or leave it out",
}

_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a number",
    Decimal: "a number",
    str: "text",
    datetime: "a date with a time",
    date: "a date",
    time: "a time",
    list: "an array",
    dict: "a table",
}

_HEADER = re.compile(r"[ \t]*\[\[[ \t]*prices[ \t]*\]\]")
_BACKEND = re.compile(r"[a-z][a-z0-9_]*")
_WRITTEN = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def _read(path: Path) -> list[Price]:
    text = _text_of(path)
    try:
        given = tomllib.loads(text, parse_float=_decimal)
    except ValueError as error:
        raise UnusablePrices(f"price file {path} is not valid TOML: {error}. Correct that place") from None
    problems = [
        f"`{name}`: there is nothing of this name; write each price under a line [[prices]]"
        for name in given
        if name != "prices"
    ]
    entries, prices = given.get("prices"), []
    if _are_tables(entries):
        prices = _prices(entries, _lines_of_headers(text), problems)
    elif entries is not None:
        problems.append("`prices` is not a list of prices; write each under a line [[prices]], with two brackets")
    elif not problems:
        problems.append("there is no price in it; write each under a line [[prices]], or `prices = []` for none at all")
    if problems:
        raise UnusablePrices(_told(path, problems))
    return prices


def _text_of(path: Path) -> str:
    other = "or set `prices_file` to another file, or leave it out for the packaged prices"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UnusablePrices(f"price file {path} is not there: write it, {other}") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UnusablePrices(f"price file {path} cannot be read ({why}): make it readable, {other}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnusablePrices(f"price file {path} is not UTF-8 in line {line}: save it as UTF-8") from None


def _decimal(written: str) -> Decimal:
    try:
        return Decimal(written)
    except InvalidOperation:  # an exponent beyond what Decimal holds, which is refused later, where the place is known
        return Decimal("NaN")


def _are_tables(entries: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _lines_of_headers(text: str) -> list[int]:
    return [number for number, line in enumerate(text.split("\n"), 1) if _HEADER.match(line)]


def _told(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"price file {path}: {problems[0]}"
    more = len(problems) - _SHOWN
    lines = [*problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return "\n  ".join((f"price file {path} has {len(problems)} mistakes:", *lines))


def _prices(entries: list[dict[str, object]], lines: list[int], problems: list[str]) -> list[Price]:
    found: dict[tuple[str, str | None, date], tuple[Price, str]] = {}
    for index, fields in enumerate(entries):
        # tomllib tells no lines of what it has read; a header within a text of several lines would put them all out.
        line = f" (line {lines[index]})" if len(lines) == len(entries) else ""
        where = f"entry {index + 1}{line}"
        price = _Entry(where, fields, problems).price()
        if price is None:
            continue
        key = (price.model, price.backend, price.since)
        if key in found:
            same = f"has the model, backend and date of {found[key][1]}"
            problems.append(f"{where}: {same}; leave one of them out, or change its `from`")
        else:
            found[key] = (price, where)
    return [price for price, _ in found.values()]


class _Entry:
    """One price as the file has it. What is wrong with it goes to ``problems``."""

    def __init__(self, where: str, fields: Mapping[str, object], problems: list[str]) -> None:
        self._where = where
        self._fields = fields
        self._problems = problems

    def price(self) -> Price | None:
        """None: it has mistakes, and they have been told."""
        before = len(self._problems)
        known = ", ".join(_WHAT_TO_WRITE)
        for name in self._fields:
            if name not in _WHAT_TO_WRITE:
                self._problems.append(f"{self._where}, `{name}`: there is no such field; there are {known}")
        model, backend, since = self._model(), self._backend(), self._since()
        read, written = self._usd("input", needed=True), self._usd("output", needed=True)
        cached, reasoning, source = self._usd("cached_input"), self._usd("reasoning"), self._text("source")
        if len(self._problems) > before or model is None or since is None or read is None or written is None:
            return None
        return Price(model, backend, since, read, written, cached, reasoning, source or "")

    def _wrong(self, name: str, problem: str) -> None:
        self._problems.append(f"{self._where}, `{name}`: {problem}; {_WHAT_TO_WRITE[name]}")

    def _given(self, name: str, *, needed: bool) -> object | None:
        if name not in self._fields and needed:
            self._wrong(name, "is missing")
        return self._fields.get(name)

    def _text(self, name: str, *, needed: bool = False) -> str | None:
        value = self._given(name, needed=needed)
        if value is None:
            return None
        if not isinstance(value, str):
            self._wrong(name, f"is {_KINDS[type(value)]} and not text")
            return None
        if not value or value != value.strip():
            self._wrong(name, f"{value!r} is empty, or has spaces around it")
            return None
        return value

    def _model(self) -> str | None:
        model = self._text("model", needed=True)
        if model is not None and _ANY in model[:-1]:
            self._wrong("model", f"{model!r} has a * that is not at its end")
        return model

    def _backend(self) -> str | None:
        backend = self._text("backend")
        if backend is not None and not _BACKEND.fullmatch(backend):
            self._wrong("backend", f"{backend!r} is no backend's name: they have small letters, digits and _")
        return backend

    def _since(self) -> date | None:
        value = self._given("from", needed=True)
        if value is None:
            return None
        if isinstance(value, datetime):
            zone = "" if value.tzinfo is None else " and a time zone"
            self._wrong("from", f"{value.isoformat()} has a time{zone}")
            return None
        if not isinstance(value, date):
            self._wrong("from", f"is {_KINDS[type(value)]} and not a date")
            return None
        return value

    def _usd(self, name: str, *, needed: bool = False) -> Decimal | None:
        value = self._given(name, needed=needed)
        if value is None:
            return None
        if isinstance(value, str):
            if not _WRITTEN.fullmatch(value):
                self._wrong(name, f"{value!r} is not a number, with a point and no more than digits beside it")
                return None
            price = Decimal(value)
        elif isinstance(value, Decimal | int) and not isinstance(value, bool):
            price = Decimal(value)
        else:
            self._wrong(name, f"is {_KINDS[type(value)]} and not a number")
            return None
        problem = _wrong_with(price)
        if problem is not None:
            self._wrong(name, problem)
            return None
        return _plain(price)


def _wrong_with(price: Decimal) -> str | None:
    if not price.is_finite():
        return "is not a finite number"
    if price.is_signed():
        return f"{price} is negative"
    if price > _MOST:
        return f"is more than {_MOST}"
    exponent = _EXACT.normalize(price).as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MOST_PLACES:
        return f"has more than {_MOST_PLACES} decimal places"
    return None
