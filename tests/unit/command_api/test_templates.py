"""Templates: what is filled, what is refused and where, and that nobody hangs or exhausts the API with one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_api.templates import MOST_CHARACTERS, MOST_OUTPUT, Language, Names, TemplateError, Values, escaped, parse

pytestmark = pytest.mark.timeout(60)  # most attacks would take longer, or all memory, were they not refused

NAMES: Names = {"city": None, "count": None, "polite": None, "character": frozenset(("name",))}
VALUES: Values = {"city": "Bonn", "count": 3, "polite": True, "character": {"name": "Bruna"}}
LANGUAGES: tuple[Language, ...] = ("placeholders", "jinja")


def rendered(text: str, language: Language, values: Values = VALUES) -> str:
    return parse(text, language, "system", NAMES).render(values)


def refused(text: str, language: Language, values: Values = VALUES) -> TemplateError:
    with pytest.raises(TemplateError) as raised:
        rendered(text, language, values)
    return raised.value


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("no places", "no places"),
        ("{city}", "Bonn"),
        ("In {city}, {count} times, {polite}.", "In Bonn, 3 times, true."),
        ("{character.name}", "Bruna"),
        ("{{city}} {{{city}}} }}{{", "{city} {Bonn} }{"),
        ('{{"a": "{city}"}}', '{"a": "Bonn"}'),
    ],
)
def test_placeholders(text: str, wanted: str) -> None:
    assert rendered(text, "placeholders") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ city }}, {{ count }}, {{ polite }}", "Bonn, 3, true"),
        ("{% if polite %}Please. {% else %}Now. {% endif %}{{ character.name }}", "Please. Bruna"),
        ("{% if count > 2 and city == 'Bonn' %}many{% endif %}", "many"),
        ("{% if city in ['Bonn', 'Köln'] %}Rhine{% endif %}", "Rhine"),
        ("{{ city|upper }} {{ city|length }} {{ 'a' if polite else 'b' }}", "BONN 4 a"),
        ("{% for day in ['Mo', 'Tu'] %}{{ loop.index }} {{ day }};{% endfor %}", "1 Mo;2 Tu;"),
        ("{% for _ in range(3) %}{{ city }}{% endfor %}", "BonnBonnBonn"),
        ("{# nothing #}{% raw %}{{ city }}{% endraw %}\n", "{{ city }}\n"),
        ("{city} is no place here", "{city} is no place here"),
    ],
)
def test_jinja(text: str, wanted: str) -> None:
    assert rendered(text, "jinja") == wanted


@pytest.mark.parametrize(
    ("text", "language", "name", "line", "column"),
    [
        ("Go to\nthe {town}", "placeholders", "town", 2, 5),
        ("{city.name}", "placeholders", "city.name", 1, 1),
        ("{character}", "placeholders", "character", 1, 1),
        ("{character.age}", "placeholders", "character.age", 1, 1),
        ("\n\n  {{ town }}", "jinja", "town", 3, 6),
        ("{{ character.age }}", "jinja", "character.age", 1, 4),
        ("{% if town %}{% endif %}", "jinja", "town", 1, 7),
        ("{% for day in ['a'] %}{% endfor %}{{ day }}", "jinja", "day", 1, 8),
    ],
)
def test_what_is_not_declared_is_named_with_its_place(
    text: str, language: Language, name: str, line: int, column: int
) -> None:
    error = refused(text, language)
    assert (error.field, error.name, error.line, error.column) == ("system", name, line, column)
    assert f"`{name}`" in str(error)
    assert f"(system, line {line}, column {column})" in str(error)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("{", 1, 1), ("a }", 1, 3), ("{ city }", 1, 1), ("x\n{0}", 2, 1), ("{city!r}", 1, 1), ("{}", 1, 1), ("{{{", 1, 3)],
)
def test_a_brace_that_is_part_of_nothing_is_refused(text: str, line: int, column: int) -> None:
    error = refused(text, "placeholders")
    assert (error.line, error.column) == (line, column)


SEVEN_YEARS = "999999999"

ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ city.__class__ }}",
    "{{ city['__class__'] }}",
    "{{ city|attr('__class__') }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum(n=100000) }}",
    "{{ namespace(a=1) }}",
    "{{ dict(a=1) }}",
    "{% include 'x' %}",
    "{% import 'x' as x %}",
    "{% extends 'x' %}",
    "{% block x %}{% endblock %}",
    "{% set x = city %}",
    "{% with x = city %}{% endwith %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% call f() %}{% endcall %}",
    "{% filter upper %}a{% endfilter %}",
    "{% autoescape true %}{% endautoescape %}",
    f"{{{{ 'a' * {SEVEN_YEARS} }}}}",
    f"{{{{ city * {SEVEN_YEARS} }}}}",
    f"{{{{ 10 ** {SEVEN_YEARS} }}}}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%999999999d'|format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ city.ljust(999999999) }}",
    "{{ city|center(999999999) }}",
    "{{ 1.5|round(999999999, 'ceil') }}",
    "{{ city|indent(999999999) }}",
    "{{ city|replace('', city) }}",
    "{{ city|tojson|tojson }}",
    "{{ city|list }}",
    "{{ city|join(city) }}",
    "{{ city ~ city }}",
    "{{ city + city }}",
    "{{ [city, [city]] }}",
    "{{ range(999999999) }}",
    f"{{% for x in range({SEVEN_YEARS}) %}}{{% endfor %}}",
    "{% for x in range(101) %}{% endfor %}",
    "{% for x in range(count) %}{% endfor %}",
    "{% for x in range(true) %}{% endfor %}",
    "{% for x in city %}{% endfor %}",
    "{% for x in city|list %}{% endfor %}",
    "{% for x in range(9) %}{% for y in range(9) %}{% endfor %}{% endfor %}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for x in [1] if x %}{% endfor %}",
    "{% for x in [1] %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for city in [1] %}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% if 'a' in city %}{% endif %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{% if " + " and ".join(["polite"] * 3000) + " %}{% endif %}",
    "{% if polite %}" * 1000 + "{% endif %}" * 1000,
    "{{ city" + "|upper" * 4000 + " }}",
    "{{ " + "9" * 10_000 + " }}",
    "{{ '\\d' }}" + "{{ missing }}",
    "{% for x in range(100) %}" + "{{ x }}" * 500 + "{% endfor %}",
    "{% for x in range(100) %}" + "{{ 1 if polite }}" * 500 + "{% endfor %}",
    "{{ city",
    "{% if %}",
    "{% do city %}",
    "{% trans %}{% endtrans %}",
    "{% debug %}",
    "{{ city|nosuch }}",
    "{{ city|title }}",
    "{% if city is divisibleby 3 %}{% endif %}",
    "{% if city > count %}{% endif %}",
    "{{ count|length }}",
    "{{ city|default(value='x') }}",
]


@pytest.mark.parametrize("text", ATTACKS, ids=[attack[:40] for attack in ATTACKS])
def test_what_may_not_stand_in_jinja_is_refused_at_once(text: str) -> None:
    assert str(refused(text, "jinja")).endswith(")")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_template_is_no_longer_than_its_limit(language: Language) -> None:
    assert len(rendered("x" * MOST_CHARACTERS, language)) == MOST_CHARACTERS
    refused("x" * (MOST_CHARACTERS + 1), language)


@pytest.mark.parametrize(("text", "language"), [("{city}" * 3, "placeholders"), ("{{ city }}" * 3, "jinja")])
def test_what_it_renders_to_is_bounded_while_it_renders(text: str, language: Language) -> None:
    long = {**VALUES, "city": "x" * (MOST_OUTPUT // 2)}
    assert "renders to more" in str(refused(text, language, long))


def test_many_filters_over_a_long_text_are_refused() -> None:
    text = "{% for _ in range(100) %}{% if city|upper == 'x' %}{% endif %}{% endfor %}"
    assert rendered(text, "jinja") == ""
    assert "too many for so long a text" in str(refused(text, "jinja", {**VALUES, "city": "x" * 900_000}))


def test_what_is_given_is_never_read_as_a_template() -> None:
    inner = "{count} {{ count }} {% if polite %}"
    assert rendered("{city}", "placeholders", {**VALUES, "city": inner}) == inner
    assert rendered("{{ city }}", "jinja", {**VALUES, "city": inner}) == inner


_TEXTS = st.text(max_size=40)
_PIECES = st.lists(st.sampled_from(("{city}", "{count}", "{polite}", "{character.name}")) | _TEXTS.map(escaped))
_VALUES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "city": _TEXTS,
        "count": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        "polite": st.booleans(),
        "character": st.fixed_dictionaries({"name": _TEXTS}),
    }
)


@given(_PIECES, _VALUES)
def test_whatever_is_declared_is_filled(pieces: list[str], values: dict[str, Any]) -> None:
    """Beside a rendering that is made another way: the pieces one by one."""
    alone = {
        "{city}": values["city"],
        "{count}": str(values["count"]),
        "{polite}": "true" if values["polite"] else "false",
        "{character.name}": values["character"]["name"],
    }
    wanted = [alone[one] if one in alone else one.replace("{{", "{").replace("}}", "}") for one in pieces]
    assert rendered("".join(pieces), "placeholders", values) == "".join(wanted)


_SYNTAX = st.text(alphabet="{}% ciytou|.nt'[]()=~*+-_\"\\\n", max_size=60)


@given(_SYNTAX | st.text(max_size=60), st.sampled_from(LANGUAGES), _VALUES)
def test_nothing_but_its_own_error_is_raised(text: str, language: Language, values: dict[str, Any]) -> None:
    with suppress(TemplateError):
        rendered(text, language, values)


@given(st.text(max_size=200))
def test_an_escaped_text_renders_to_itself(text: str) -> None:
    assert parse(escaped(text), "placeholders", "system", {}).render({}) == text
