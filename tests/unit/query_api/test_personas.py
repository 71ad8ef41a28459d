"""What differs between two versions, and a persona as one file."""

from __future__ import annotations

import json

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from event_schemas.chat import ResponseFormat, Tool
from event_schemas.generation import Parameters
from event_schemas.personas import Character, PersonaContent, Variable
from query_api.persona_export import as_json, as_yaml
from query_api.personas import Change, changes

CONTENT = PersonaContent(
    system="You translate.\n",
    variables=(Variable(name="language", default="French"), Variable(name="tone")),
    parameters=Parameters(temperature=0.2),
    stop=("END",),
    tools=(Tool(name="look", parameters={"type": "object"}),),
    response_format=ResponseFormat(json_schema={"type": "object"}),
    character=Character(name="Bruna"),
)


def test_what_says_the_same_does_not_differ() -> None:
    assert changes(CONTENT, CONTENT.model_copy()) == []


def test_each_field_that_differs_is_named_by_its_path() -> None:
    after = CONTENT.model_copy(
        update={
            "system": None,
            "stop": (),
            "variables": (Variable(name="tone", type="integer"), Variable(name="language", default="German")),
            "character": Character(name="Bruna", world="A valley."),
            "scratchpad": True,
        }
    )
    assert changes(CONTENT, after) == [
        Change("character.world", None, "A valley."),
        Change("parameters.stop", ["END"], None),
        Change("scratchpad", None, True),
        Change("system", "You translate.\n", None),
        Change("variables.language.default", "French", "German"),
        Change("variables.tone.type", None, "integer"),
    ]


def test_a_text_of_many_lines_is_a_block() -> None:
    assert "system: |\n  You translate.\n" in as_yaml("translator", CONTENT)
    assert as_json("translator", CONTENT).startswith('{\n  "name": "translator"')


@given(st.text(max_size=80), st.text(max_size=80))
@example("", "\x85")
@example("a\u2028b\n", "\r\n\u2029")
def test_both_forms_say_the_same(system: str, greeting: str) -> None:
    content = PersonaContent(system=system, greeting=greeting, description=system)
    told = {"name": "x", **content.as_given()}
    assert json.loads(as_json("x", content)) == told
    assert yaml.safe_load(as_yaml("x", content)) == told
