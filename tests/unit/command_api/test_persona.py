"""From what a client sends to the prompt that it stands for."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from backplane.settings import PoolSettings, Settings
from command_api.admission import Refused, admit
from command_api.persona import InvalidPersona, Persona
from command_api.persona_body import DefinitionBody
from command_api.persona_preview import preview
from command_api.prompt import PromptBody, content_of
from command_api.source_body import wishes_of
from event_schemas.chat import ImagePart, TextPart
from event_schemas.payload import PersonaRef

REF = PersonaRef(persona_id=uuid4(), name="clerk", version=3)
TRANSLATOR = {
    "system": "You are polite.\nTranslate into {language}.",
    "prompt": "Text: {input}",
    "greeting": "What shall I put into {language}?",
    "variables": [
        {"name": "language", "type": "choice", "choices": ["French", "German"]},
    ],
}
SETTINGS = Settings(
    pools={
        "a": PoolSettings(backend="scripted", models=("small",)),
        "b": PoolSettings(backend="scripted", models=("other", "spare"), fallbacks=("small",)),
    }
)


def persona(**definition: Any) -> Persona:
    made = Persona(DefinitionBody.model_validate(definition).content())
    made.check()
    return made


def body(**given: Any) -> PromptBody:
    return PromptBody.model_validate(given)


def asked(of: Persona, *, begins: bool = True, anew: bool = True, **given: Any) -> PromptBody:
    return of.prompt(REF, body(persona="clerk", **given), begins=begins, anew=anew)


def said(of: Persona, **given: Any) -> list[tuple[str, str]]:
    return [(one.role, one.text) for one in content_of(asked(of, **given)).messages]


def refused(of: Persona, **given: Any) -> tuple[str, str, str]:
    with pytest.raises(Refused) as raised:
        asked(of, **given)
    return raised.value.type, raised.value.field, str(raised.value)


def test_the_first_prompt_of_a_conversation_is_rendered_whole() -> None:
    assert said(persona(**TRANSLATOR), input="{language}", variables={"language": "French"}) == [
        ("system", "You are polite.\nTranslate into French."),
        ("assistant", "What shall I put into French?"),
        ("user", "Text: {language}"),
    ]


def test_what_goes_on_says_only_what_is_new() -> None:
    of, french = persona(**TRANSLATOR), {"language": "French"}
    follow_up = {"input": "Hi", "begins": False, "anew": False}
    assert said(of, **follow_up) == [("user", "Text: Hi")]
    assert said(of, variables=french, **follow_up) == [
        ("system", "You are polite.\nTranslate into French."),
        ("user", "Text: Hi"),
    ]
    assert refused(of, input="Hi", begins=False, anew=True)[0] == "missing-variable"


def test_a_persona_without_a_system_prompt_takes_back_the_one_before() -> None:
    assert said(persona(), input="Hi", begins=False) == [("system", ""), ("user", "Hi")]
    assert said(persona(), input="Hi", begins=True) == [("user", "Hi")]


def test_answering_again_renders_nothing() -> None:
    again = {"parent_message_id": str(uuid4()), "begins": False, "anew": False}
    assert said(persona(**TRANSLATOR), **again) == []


@pytest.mark.parametrize(
    ("given", "kind", "field", "told"),
    [
        ({}, "missing-variable", "body.variables.language", "it stands in system, line 2, column 16"),
        ({"variables": {"language": "Dutch"}}, "invalid-variable", "body.variables.language", "one of French, German"),
        ({"variables": {"language": 3}}, "invalid-variable", "body.variables.language", "not of its type"),
        (
            {"variables": {"language": "French", "town": "Bonn"}},
            "unknown-variable",
            "body.variables.town",
            "there is no variable `town`; there are: `language`",
        ),
        ({"system": "Be rude."}, "system-of-persona", "body.system", "says what its system prompt is"),
        (
            {"input": None, "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]},
            "system-of-persona",
            "body.messages",
            "says what its system prompt is",
        ),
        ({"input": None, "variables": {"language": "French"}}, "missing-input", "body.input", "a place for an `input`"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(given: dict[str, Any], kind: str, field: str, told: str) -> None:
    found = refused(persona(**TRANSLATOR), **{"input": "Hi", **given})
    assert found[:2] == (kind, field)
    assert told in found[2]
    assert "clerk@3" in found[2]


def test_a_prompt_of_variables_alone_takes_no_input() -> None:
    of = persona(prompt="A poem about {topic}.", variables=[{"name": "topic"}])
    assert said(of, variables={"topic": "tea"}) == [("user", "A poem about tea.")]
    assert refused(of, input="Hi", variables={"topic": "tea"})[0] == "no-place-for-input"
    assert refused(persona(), variables={})[0] == "missing-input"


def test_pictures_and_earlier_messages_stay() -> None:
    picture = {"type": "image", "url": "https://example.com/cat.png"}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, picture]},
    ]
    found = content_of(asked(persona(**TRANSLATOR), messages=messages, variables={"language": "French"})).messages
    assert [one.role for one in found] == ["system", "user", "assistant", "user"]
    assert found[-1].content == (TextPart(text="Text: c"), ImagePart(url="https://example.com/cat.png"))


def test_a_tools_answer_is_no_place_for_a_template() -> None:
    messages = [{"role": "tool", "content": "17 °C", "tool_call_id": "c1"}]
    of = persona(**TRANSLATOR)
    assert said(of, messages=messages, begins=False, anew=False) == [("tool", "17 °C")]


def test_the_prompts_own_settings_go_before_the_personas() -> None:
    of = persona(
        model="other",
        fallbacks=["spare"],
        parameters={"temperature": 0.2, "max_tokens": 10, "stop": ["END"]},
        tools=[{"name": "look"}],
        response_format={"name": "poem"},
    )
    plain = asked(of, input="Hi")
    assert (plain.model, plain.parameters.temperature, plain.parameters.stop) == ("other", 0.2, ("END",))
    assert ([one.name for one in plain.tools], plain.response_format and plain.response_format.name) == (
        ["look"],
        "poem",
    )
    own = asked(of, input="Hi", model="small", parameters={"temperature": 1, "stop": []}, response_format=None)
    assert (own.model, own.parameters.temperature, own.parameters.max_tokens) == ("small", 1, 10)
    assert (own.parameters.stop, own.response_format) == ((), None)


def test_what_is_read_and_how_it_answers_is_the_personas_where_a_prompt_says_nothing() -> None:
    sources = [{"kind": "site", "site": "news", "optional": True}, {"kind": "text", "text": "The kettle is red."}]
    of = persona(sources=sources, window="summarise", scratchpad=True)
    plain = asked(of, input="Hi")
    assert [one.model_dump() for one in wishes_of(plain.sources)] == [
        {"optional": True, "kind": "site", "site": "news"},
        {"optional": False, "kind": "text", "text": "The kettle is red."},
    ]
    assert (plain.window, plain.scratchpad, plain.repairs) == ("summarise", True, None)
    admit(plain, SETTINGS)
    own = asked(of, input="Hi", sources=[], window="fail", scratchpad=False)
    assert (own.sources, own.window, own.scratchpad) == ((), "fail", False)


def test_a_personas_fallbacks_stand_in_place_of_its_pools() -> None:
    fallbacks = [one.model for one in admit(body(input="Hi", model="other"), SETTINGS).fallbacks]
    assert fallbacks == ["small"]
    of_persona = admit(body(input="Hi", model="other"), SETTINGS, fallbacks=("spare", "nobody-knows"))
    assert [(one.pool, one.model) for one in of_persona.fallbacks] == [("b", "spare")]


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        ({"system": "In {town}"}, "system"),
        ({"system": "{input}"}, "system"),
        ({"greeting": "{input}"}, "greeting"),
        ({"prompt": "{"}, "prompt"),
        ({"language": "jinja", "prompt": "{{ input.x }}"}, "prompt"),
        ({"language": "jinja", "prompt": "{% if input > 3 %}{% endif %}"}, "prompt"),
        ({"system": "{character.world}"}, "system"),
        ({"system": "{character.world}", "character": {"name": "Bruna"}}, "system"),
        ({"variables": [{"name": "input"}]}, "variables.input"),
        ({"variables": [{"name": "a"}, {"name": "a"}]}, "variables.a"),
        ({"variables": [{"name": "a", "type": "choice"}]}, "variables.a"),
        ({"variables": [{"name": "a", "choices": ["b"]}]}, "variables.a"),
        ({"variables": [{"name": "a", "type": "integer", "default": "1"}]}, "variables.a"),
        ({"variables": [{"name": "a", "type": "integer", "default": True}]}, "variables.a"),
        ({"variables": [{"name": "a", "type": "choice", "choices": ["b"], "default": "c"}]}, "variables.a"),
        ({"parameters": {"tool_choice": "required"}}, "parameters.tool_choice"),
    ],
)
def test_a_definition_that_nobody_could_ask_as_is_refused(definition: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPersona) as raised:
        persona(**definition)
    assert raised.value.field == field


def test_variables_that_no_template_names_are_told() -> None:
    of = persona(system="{a}", variables=[{"name": "a"}, {"name": "b"}])
    assert of.unused == ("b",)


def test_a_character_speaks_in_templates() -> None:
    of = persona(
        system="You are {character.name}, who lives in {character.world}.",
        character={"name": "Bruna", "world": "a {valley}"},
    )
    assert said(of, input="Hi")[0] == ("system", "You are Bruna, who lives in a {valley}.")


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ({"type": "integer"}, 3, "3"),
        ({"type": "number"}, 3, "3"),
        ({"type": "number"}, 0.5, "0.5"),
        ({"type": "boolean"}, False, "false"),
        ({"type": "string"}, "", ""),
        ({"type": "string", "default": "x"}, None, "x"),
    ],
)
def test_values_of_each_type(variable: dict[str, Any], value: Any, shown: str) -> None:
    of = persona(system="<{a}>", variables=[{"name": "a", **variable}])
    given = {} if value is None else {"variables": {"a": value}}
    assert said(of, input="Hi", **given)[0] == ("system", f"<{shown}>")


def test_what_is_required_is_asked_for_although_it_has_a_default() -> None:
    of = persona(system="{a}", variables=[{"name": "a", "default": "x", "required": True}])
    assert refused(of, input="Hi")[0] == "missing-variable"


def test_a_preview_says_what_it_made_up() -> None:
    shown = preview(persona(**TRANSLATOR), SETTINGS, {}, None)
    assert [(one.role, one.text) for one in shown.messages] == [
        ("system", "You are polite.\nTranslate into French."),
        ("assistant", "What shall I put into French?"),
        ("user", "Text: [input]"),
    ]
    assert (shown.samples, shown.model, shown.counted_by) == ({"language": "French"}, "small", "estimate")
    assert shown.tokens > 20
    given = preview(persona(**TRANSLATOR), SETTINGS, {"language": "German"}, "Tea?")
    assert (given.samples, given.messages[-1].text) == ({}, "Text: Tea?")


def test_a_definition_comes_back_as_it_was_given() -> None:
    given = {
        **TRANSLATOR,
        "parameters": {"temperature": 0.2, "stop": ["END"]},
        "tools": [{"name": "look"}],
        "character": {"name": "Bruna"},
        "users": [str(uuid4())],
        "limits": {"concurrent": 1},
        "fallbacks": ["spare"],
    }
    content = DefinitionBody.model_validate(given).content()
    assert content.as_given() == given
    assert DefinitionBody.model_validate(content.as_given()).content() == content


def test_a_repeat_is_the_same_request_also_for_who_knew_no_personas() -> None:
    old = PromptBody.model_validate({"input": "Hi"})
    known = set(json.loads(old.as_given().removeprefix(b"False:")))
    assert known == {
        *("conversation_id", "parent_message_id", "model", "system", "messages", "input", "parameters", "tools"),
        *("response_format", "metadata"),
    }, "what a release knew before must stay the same bytes: name each newer field in `as_given`"
    assert old.as_given() != PromptBody.model_validate({"input": "Hi", "persona": None}).as_given()
    assert b"clerk" in PromptBody.model_validate({"input": "Hi", "persona": "clerk"}).as_given()
