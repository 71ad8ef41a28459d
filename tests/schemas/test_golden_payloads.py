"""What was ever published decodes for ever. These files are never edited; a new version gets a new file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backplane.security.content import DataKey, opened
from event_schemas.chat import AnswerContent
from event_schemas.codec import decode, encode
from event_schemas.control_plane import TitleContent
from event_schemas.generation import PromptContent, TokensContent
from event_schemas.payload import Content
from event_schemas.personas import PersonaContent, PersonaSaved, SavePersona
from event_schemas.registry import COMMANDS, EVENTS, split

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_payload_decodes_to_the_newest_version(file: Path) -> None:
    envelope = decode(file.read_bytes())
    assert split(envelope.type)[0] == split(file.stem)[0]
    assert envelope.type == type(envelope.data).wire_name


@pytest.mark.parametrize("payload", [*COMMANDS, *EVENTS], ids=lambda payload: payload.wire_name)
def test_the_newest_version_has_a_golden_payload_that_survives_the_round_trip(payload: type) -> None:
    file = Path(__file__).parent / "golden" / f"{payload.wire_name}.json"  # type: ignore[attr-defined]
    assert json.loads(encode(decode(file.read_bytes()))) == json.loads(file.read_text())


KEY = DataKey(
    bytes(range(32)), "conversation/01990000-0000-7000-8000-000000000009/01990000-0000-7000-8000-000000000002"
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prompt.submit", PromptContent),
        ("tokens.emitted", TokensContent),
        ("generation.completed", AnswerContent),
        ("generation.failed", AnswerContent),
        ("generation.cancelled", AnswerContent),
        ("conversation.rename", TitleContent),
        ("conversation.renamed", TitleContent),
    ],
)
def test_what_was_ever_sealed_opens_for_ever_and_says_what_it_said_before(name: str, kind: type[Content]) -> None:
    """Plain and sealed versions of one payload hold the same."""
    found = []
    for file in GOLDEN:
        if split(file.stem)[0] == name:
            written = getattr(decode(file.read_bytes()).data, "content", None)
            if written is not None:
                found.append((split(file.stem)[1], opened(written, KEY, kind)))
    newest = sorted(found, key=lambda one: one[0])[-2:]
    assert newest[0][1] == newest[1][1]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
@pytest.mark.parametrize("before", [{}, {"type": "tokens.emitted.v1"}, {"type": "generation.started.v1"}])
def test_the_order_of_an_envelopes_fields_does_not_matter(file: Path, before: dict[str, str]) -> None:
    fields = json.loads(file.read_text())
    reordered = {"later": before, "data": fields.pop("data"), **fields, "type": fields.pop("type")}
    assert decode(json.dumps(reordered).encode()) == decode(file.read_bytes())


def test_a_personas_definition_opens_for_ever() -> None:
    place = "conversation/01990000-0000-7000-8000-000000000009/01990000-0000-7000-8000-00000000000a"
    for name in ("persona.save", "persona.saved"):
        of_persona = [file for file in GOLDEN if split(file.stem)[0] == name]
        assert of_persona
        for file in of_persona:
            saved = decode(file.read_bytes()).data
            assert isinstance(saved, SavePersona | PersonaSaved)
            content = opened(saved.content, DataKey(bytes(range(32)), place), PersonaContent)
            assert content.system == "Translate into {language}."
            assert content.variables[0].choices == ("French", "German")
