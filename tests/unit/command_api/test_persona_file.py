"""Personas in files, the older forms too; and what no file may do to its reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from command_api.persona import Persona
from command_api.persona_file import MOST_CHARACTERS, UnusableFile, parse, slug
from command_api.variables import sample

pytestmark = pytest.mark.timeout(60)

TRANSLATOR = """\
name: translator
description: Translates what it is given.
system: |
  You translate into {language}.
  Answer with the translation only.
variables:
  - name: language
    type: choice
    choices: [French, "No"]
parameters: {temperature: 0.2, stop: [END]}
"""
OLDER = {
    "config": {"temperature": "0.7", "top_p": "0.9", "max_tokens": "256"},
    "system": 'You know {place}. Answer as {"a": 1}.',
    "user": "{input}\nBriefly, for {who}.",
    "template": "<s>{system}</s><u>{user}</u>",
}


def rendered(made: Persona, said: str = "Hi") -> list[str | None]:
    values = {one.name: sample(one) for one in made.content.variables}
    return [made.rendered(field, values, said=said) for field in ("system", "prompt", "greeting")]


def test_yaml_as_it_is_exported() -> None:
    name, definition, notices = parse(TRANSLATOR, "x.yaml")
    content = definition.content()
    assert (name, notices, content.stop, content.parameters.temperature) == ("translator", (), ("END",), 0.2)
    assert content.system == "You translate into {language}.\nAnswer with the translation only.\n"
    assert content.variables[0].choices == ("French", "No")


def test_json_says_the_same_as_yaml() -> None:
    assert parse(json.dumps(yaml.safe_load(TRANSLATOR)), "x.json") == parse(TRANSLATOR, "x.yaml")


def test_a_file_that_names_nobody_names_it() -> None:
    assert parse("system: x", "personas/Old Clerk.yml").name == "old-clerk"


def test_an_older_prompt_imports_as_it_is() -> None:
    name, definition, notices = parse(json.dumps(OLDER), "travel.json")
    content = definition.content()
    assert name == "travel"
    assert (content.parameters.temperature, content.parameters.top_p, content.parameters.max_tokens) == (0.7, 0.9, 256)
    assert rendered(Persona(content)) == ['You know [place]. Answer as {"a": 1}.', "Hi\nBriefly, for [who].", None]
    assert len(notices) == 1
    assert "`template`" in notices[0]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"temperature": "warm"}, "config.temperature"),
        ({"max_tokens": "12.5"}, "config.max_tokens"),
        ({"top_p": []}, "config.top_p"),
        ({"temperature": "3"}, "parameters.temperature"),
        ({"temperature": "nan"}, "parameters.temperature"),
        ({"repetition": "1"}, "config.repetition"),
        ("0.7", "config"),
    ],
)
def test_a_bad_value_of_an_older_prompt_is_named(config: Any, field: str) -> None:
    with pytest.raises(UnusableFile, match=f"^{field}: "):
        parse(json.dumps({**OLDER, "config": config}), "x.json")


def test_an_older_personality_imports_as_it_is() -> None:
    older = {
        "name": "Old Bruna",
        "imperative": "You are Bruna. Say {nothing} of {{this}}.",
        "description": "An innkeeper.",
        "greeting": "Boots off! {}",
        "world": "A valley.",
        "mood": "gruff",
        "traits": ["kind"],
    }
    name, definition, _ = parse(json.dumps(older), "x.json")
    content = definition.content()
    assert name == "old-bruna"
    assert rendered(Persona(content)) == [older["imperative"], None, older["greeting"]]
    assert content.description == 'An innkeeper.\nmood: gruff\ntraits: ["kind"]'
    assert content.character is not None
    assert (content.character.name, content.character.world) == ("Old Bruna", "A valley.")


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "- a",
        "just a text",
        "1: 2",
        "{",
        '{"system": 1e999999}',
        '{"system": ' + "9" * 5000 + "}",
        "system: " + "9" * 5000,
        '{"a": ' * 100_000,
        "[" * 100_000,
        "- " * 50_000,
        BOMB,
        "system: *nobody",
        "system: a\nsystem: b",
        '{"system": "a", "system": "b"}',
        "system: !!python/object/apply:os.system ['true']",
        "system: !!binary aGk=",
        "system: !!set {a, b}",
        "name: a\nsystem: 2026-01-01\nparameters: 5",
        "nosuch: field",
        "name: [a]",
        "name: '???'\nsystem: x",
        "variables: [{name: a, secret: b}]",
        "system: x\0",
        "a: b: c",
        "x" * (MOST_CHARACTERS + 1),
        "imperative: ''",
        "imperative: [a]",
        "config: {}\nsystem: '{input}'",
        "config: {}\nuser: '{a.b}'",
        "config: {}\nmood: gruff",
    ],
    ids=range(32),
)
def test_what_is_no_persona_is_refused(text: str) -> None:
    with pytest.raises(UnusableFile):
        parse(text, "x.yaml")


def test_what_is_wrong_is_said_without_what_is_written() -> None:
    with pytest.raises(UnusableFile) as raised:
        parse('name: a\nparameters: {temperature: "secret"}', "x.yaml")
    assert "parameters.temperature" in str(raised.value)
    assert "secret" not in str(raised.value)
    with pytest.raises(UnusableFile, match=r"^line 2, column "):
        parse("system: a\n  secret: [", "x.yaml")


@given(st.text(max_size=200))
def test_names_become_names_of_personas_or_are_refused(name: str) -> None:
    try:
        found = slug(name)
    except UnusableFile:
        return
    assert slug(found) == found
