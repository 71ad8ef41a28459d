from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backplane.settings.prices import PACKAGED, Price, PriceTable, UnusablePrices
from event_schemas.payload import Usage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ENTRY = '[[prices]]\nmodel = "m"\nfrom = 2025-01-01\ninput = "1"\noutput = "2"\n'


def usage(inputs: int, outputs: int, cached: int = 0, reasoning: int = 0, source: str = "provider") -> Usage:
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        source=source,
    )


def price(model: str, amount: int, backend: str | None = None, since: date = date(2025, 1, 1)) -> Price:
    """One that costs so many dollars for a million tokens of input."""
    return Price(model, backend, since, Decimal(amount), Decimal(0))


def dollars(table: PriceTable, model: str, backend: str = "openai", at: datetime = NOON) -> Decimal | None:
    return table.cost(model=model, backend=backend, usage=usage(1_000_000, 0), at=at)


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "prices.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def loaded(folder: Path, text: str) -> PriceTable:
    return PriceTable.load(written(folder, text))


def mistakes(folder: Path, text: str | bytes) -> str:
    file = written(folder, text)
    with pytest.raises(UnusablePrices) as caught:
        PriceTable.load(file)
    assert str(caught.value).startswith(f"price file {file}")
    return str(caught.value).removeprefix(f"price file {file}").lstrip(":")


usd = st.decimals(min_value=0, max_value=1_000_000, places=12)
maybe_usd = st.none() | usd
prices = st.builds(
    Price,
    model=st.just("m"),
    backend=st.none(),
    since=st.just(date(2025, 1, 1)),
    input=usd,
    output=usd,
    cached_input=maybe_usd,
    reasoning=maybe_usd,
)
tokens = st.integers(0, 10**12)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, reasoning = draw(tokens), draw(tokens)
    return usage(cached + draw(tokens), reasoning + draw(tokens), cached, reasoning)


@given(prices, usages())
def test_the_cost_is_exact(price: Price, used: Usage) -> None:
    with localcontext() as context:
        context.prec = 3  # what others do to their context changes no sum
        cost = price.cost(used)
    cached = price.input if price.cached_input is None else price.cached_input
    reasoning = price.output if price.reasoning is None else price.reasoning
    expected = (
        Fraction(price.input) * (used.input_tokens - used.cached_input_tokens)
        + Fraction(cached) * used.cached_input_tokens
        + Fraction(price.output) * (used.output_tokens - used.reasoning_tokens)
        + Fraction(reasoning) * used.reasoning_tokens
    )
    assert Fraction(cost) == expected / 1_000_000
    assert "E" not in f"{cost:f}"
    assert "." not in f"{cost:f}" or not f"{cost:f}".endswith("0")
    exponent = cost.as_tuple().exponent
    assert isinstance(exponent, int)
    assert exponent <= 0


@given(prices, usages(), usages())
def test_two_attempts_cost_what_each_costs(price: Price, one: Usage, other: Usage) -> None:
    both = usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_input_tokens + other.cached_input_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )
    assert Fraction(price.cost(both)) == Fraction(price.cost(one)) + Fraction(price.cost(other))


@given(prices, tokens, tokens, tokens, tokens)
def test_no_count_makes_a_cost_negative(price: Price, inputs: int, outputs: int, cached: int, reasoning: int) -> None:
    """Also where a provider counts cached or reasoning tokens beside the others."""
    assert price.cost(usage(inputs, outputs, cached, reasoning)) >= 0


def test_costs_read_well() -> None:
    table = PriceTable([Price("m", None, date(2025, 1, 1), Decimal("0.15"), Decimal("0.60"))])
    costs = [
        table.cost(model="m", backend="b", usage=usage(*pair), at=NOON) for pair in ((820, 0), (0, 0), (2 * 10**8, 0))
    ]
    assert [str(cost) for cost in costs] == ["0.000123", "0", "30"]


def test_cached_input_and_reasoning_have_their_own_prices(tmp_path: Path) -> None:
    table = loaded(tmp_path, ENTRY + 'cached_input = "0.25"\nreasoning = 4\n')
    cost = table.cost(model="m", backend="b", usage=usage(1_000_000, 1_000_000, 400_000, 500_000), at=NOON)
    assert cost == Decimal("0.6") + Decimal("0.1") + Decimal(1) + Decimal(2)


def test_without_these_they_cost_what_the_rest_does(tmp_path: Path) -> None:
    table = loaded(tmp_path, ENTRY)
    cost = table.cost(model="m", backend="b", usage=usage(1_000_000, 1_000_000, 400_000, 500_000), at=NOON)
    assert cost == 3


def test_an_estimated_usage_has_a_cost_too() -> None:
    assert PriceTable([price("m", 1)]).cost(
        model="m", backend="b", usage=usage(1_000_000, 0, source="estimated"), at=NOON
    ) == Decimal(1)


def test_what_is_not_in_the_table_is_unknown_and_not_zero() -> None:
    table = PriceTable([price("m", 1, "openai"), price("local", 0, "xllamacpp")])
    assert dollars(table, "another") is None
    assert dollars(table, "m", "azure") is None
    assert dollars(table, "local", "xllamacpp") == 0
    assert dollars(PriceTable([]), "m") is None


def test_the_most_specific_name_decides() -> None:
    table = PriceTable(
        [price("*", 1), price("gpt-*", 2), price("gpt-4o*", 3), price("gpt-4o", 4), price("gpt-4o", 5, "azure")]
    )
    found = [dollars(table, name) for name in ("llama", "gpt-5", "gpt-4o-mini", "gpt-4o")]
    assert found == [1, 2, 3, 4]
    assert dollars(table, "gpt-4o", "azure") == 5


def test_the_name_decides_before_the_backend() -> None:
    table = PriceTable([price("gpt-4o", 1), price("gpt-*", 2, "azure"), price("gpt-*", 3)])
    assert dollars(table, "gpt-4o", "azure") == 1
    assert dollars(table, "gpt-5", "azure") == 2
    assert dollars(table, "gpt-5", "openai") == 3


def test_a_price_holds_from_midnight_utc_of_its_day_until_the_next() -> None:
    table = PriceTable([price("m", 2, since=date(2025, 6, 10)), price("m", 1, since=date(2025, 1, 1))])
    midnight = datetime(2025, 6, 10, tzinfo=UTC)
    assert dollars(table, "m", at=midnight - timedelta(microseconds=1)) == 1
    assert dollars(table, "m", at=midnight) == 2
    assert dollars(table, "m", at=datetime(2025, 6, 10, 1, tzinfo=timezone(timedelta(hours=2)))) == 1
    assert dollars(table, "m", at=datetime(2024, 12, 31, 23, 59, tzinfo=UTC)) is None


def test_before_its_first_day_a_price_is_unknown_whatever_less_specific_ones_say() -> None:
    table = PriceTable([price("gpt-*", 1), price("gpt-5", 2, since=date(2026, 6, 1))])
    assert dollars(table, "gpt-5") is None


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        dollars(PriceTable([price("m", 1)]), "m", at=datetime(2026, 1, 1))


def test_prices_may_be_text_and_numbers_without_loss(tmp_path: Path) -> None:
    table = loaded(
        tmp_path,
        ENTRY.replace('"1"', "0.1").replace('"2"', '"0.30"') + "cached_input = 1e-3\nreasoning = 7\n",
    )
    [found] = table.prices
    amounts = (found.input, found.output, found.cached_input, found.reasoning)
    assert [str(amount) for amount in amounts] == ["0.1", "0.3", "0.001", "7"]


def test_a_file_may_begin_with_a_byte_order_mark_and_hold_no_price(tmp_path: Path) -> None:
    assert PriceTable.load(written(tmp_path, b"\xef\xbb\xbf" + ENTRY.encode())).prices
    assert loaded(tmp_path, "prices = []").prices == ()


def test_the_packaged_table_says_where_each_price_is_from() -> None:
    table = PriceTable.load(None)
    assert len(table.prices) > 20
    assert [entry for entry in table.prices if not entry.source or entry.backend is None] == []
    assert [entry for entry in table.prices if entry.cached_input is None or entry.cached_input > entry.input] == []
    assert table.prices == PriceTable.load(PACKAGED).prices


@pytest.mark.parametrize(
    ("model", "backend", "day", "cost"),
    [
        ("gpt-4o-mini", "openai", date(2026, 1, 1), "0.75"),
        ("gpt-4.1-2025-04-14", "openai", date(2026, 1, 1), "10"),
        ("o3", "openai", date(2025, 6, 9), "50"),
        ("o3", "openai", date(2025, 6, 10), "10"),
        ("claude-haiku-4-5-20251001", "anthropic", date(2026, 1, 1), "6"),
        ("claude-opus-4-1-20250805", "anthropic", date(2026, 1, 1), "90"),
        ("gpt-4o-mini", "azure", date(2026, 1, 1), None),
        ("gpt-4o-audio-preview", "openai", date(2026, 1, 1), None),
        ("gpt-5-pro", "openai", date(2026, 1, 1), None),
        ("gpt-5", "openai", date(2025, 8, 6), None),
    ],
)
def test_the_packaged_table_knows_these(model: str, backend: str, day: date, cost: str | None) -> None:
    """A million tokens read, and a million written."""
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    found = PriceTable.load().cost(model=model, backend=backend, usage=usage(1_000_000, 1_000_000), at=at)
    assert found == (None if cost is None else Decimal(cost))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusablePrices) as caught:
        PriceTable.load(tmp_path / "none.toml")
    assert str(caught.value) == (
        f"price file {tmp_path}/none.toml is not there: "
        "write it, or set `prices_file` to another file, or leave it out for the packaged prices"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UnusablePrices, match=r"cannot be read \(Is a directory\): make it readable, or set `prices_file`"
    ):
        PriceTable.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"# one\n# \xff\n", " is not UTF-8 in line 2: save it as UTF-8"),
        (
            '[[prices]]\nmodel = "m\n',
            " is not valid TOML: Illegal character '\\n' (at line 2, column 11). Correct that place",
        ),
        (
            ENTRY.replace("2025-01-01", "2025-02-30"),
            " is not valid TOML: Invalid date or datetime (at line 3, column 8). Correct that place",
        ),
        (
            "",
            " there is no price in it; write each under a line [[prices]], or `prices = []` for none at all",
        ),
        (
            ENTRY.replace("[[prices]]", "[[price]]"),
            " `price`: there is nothing of this name; write each price under a line [[prices]]",
        ),
        (
            ENTRY.replace("[[prices]]", "[prices]"),
            " `prices` is not a list of prices; write each under a line [[prices]], with two brackets",
        ),
    ],
)
def test_what_is_no_table_at_all_is_told(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert mistakes(tmp_path, text) == message


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (
            'modell = "m"',
            "modell",
            "there is no such field; there are model, backend, from, input, output, cached_input",
        ),
        ("model = 4", "model", "is a number and not text; write the name at the backend"),
        ('model = ""', "model", "'' is empty, or has spaces around it"),
        ('model = "m "', "model", "'m ' is empty, or has spaces around it"),
        ('model = "gpt-*-mini"', "model", "'gpt-*-mini' has a * that is not at its end"),
        ('backend = "OpenAI"', "backend", "'OpenAI' is no backend's name: they have small letters"),
        ('from = "2025-01-01"', "from", "is text and not a date; write a day alone and without quotes"),
        (
            "from = 2025-01-01T00:00:00+02:00",
            "from",
            "2025-01-01T00:00:00+02:00 has a time and a time zone; write a day",
        ),
        ("from = 2025-01-01T00:00:00", "from", "2025-01-01T00:00:00 has a time; write a day alone"),
        ("from = 10:30:00", "from", "is a time and not a date"),
        ("from = 2025", "from", "is a number and not a date"),
        ('input = "-1"', "input", "-1 is negative; write USD per million tokens"),
        ("input = -0.5", "input", "-0.5 is negative"),
        ("input = nan", "input", "is not a finite number"),
        ("input = inf", "input", "is not a finite number"),
        ("input = 1e99999999999999999999", "input", "is not a finite number"),
        ("input = 1e999999", "input", "is more than 1000000"),
        ("input = 1e-13", "input", "has more than 12 decimal places"),
        ("input = true", "input", "is true or false and not a number"),
        ("input = []", "input", "is an array and not a number"),
        ('input = "2,50"', "input", "'2,50' is not a number, with a point"),
        ('output = "$2"', "output", "'$2' is not a number"),
        ('cached_input = "free"', "cached_input", "'free' is not a number"),
        ("reasoning = {}", "reasoning", "is a table and not a number"),
        ("source = 1", "source", "is a number and not text; write where the price is from"),
    ],
)
def test_each_mistake_is_told_with_its_place(tmp_path: Path, line: str, field: str, message: str) -> None:
    wrong = [one for one in ENTRY.splitlines() if not one.startswith(f"{field} = ")]
    text = ENTRY + "\n" + "\n".join([*wrong, line]).replace('"m"', '"n"')
    assert mistakes(tmp_path, text).startswith(f" entry 2 (line 7), `{field}`: {message}")


@pytest.mark.parametrize("field", ["model", "from", "input", "output"])
def test_what_is_missing_is_told(tmp_path: Path, field: str) -> None:
    text = "\n".join(one for one in ENTRY.splitlines() if not one.startswith(f"{field} = "))
    assert mistakes(tmp_path, text).startswith(f" entry 1 (line 1), `{field}`: is missing; write ")


def test_the_same_price_twice_is_told(tmp_path: Path) -> None:
    assert mistakes(tmp_path, f"{ENTRY}\n{ENTRY}") == (
        " entry 2 (line 7): has the model, backend and date of entry 1 (line 1); "
        "leave one of them out, or change its `from`"
    )
    other = ENTRY + 'backend = "openai"\n'
    assert len(loaded(tmp_path, ENTRY + other + ENTRY.replace("2025", "2026")).prices) == 3


def test_all_entries_are_checked_and_the_first_mistakes_listed(tmp_path: Path) -> None:
    text = "why = 1\n" + "\n".join(ENTRY.replace('"1"', f'"-{number}"') for number in range(1, 8))
    told = mistakes(tmp_path, text).split("\n  ")
    assert told[0] == " has 8 mistakes:"
    assert told[1].startswith("`why`: there is nothing of this name")
    assert [line.split(" is negative")[0] for line in told[2:6]] == [
        f"entry {number} (line {6 * number - 4}), `input`: -{number}" for number in range(1, 5)
    ]
    assert told[6:] == ["and 3 more"]


def test_where_lines_are_not_sure_the_entry_is_counted_only(tmp_path: Path) -> None:
    text = 'prices = [{ model = "m", from = 2025-01-01, input = "x", output = 1 }]'
    assert mistakes(tmp_path, text).startswith(" entry 1, `input`: 'x' is not a number")
