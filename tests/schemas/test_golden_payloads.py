"""What was ever published decodes for ever. These files are never edited; a new version gets a new file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from event_schemas.codec import decode, encode
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


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
@pytest.mark.parametrize("before", [{}, {"type": "tokens.emitted.v1"}, {"type": "generation.started.v1"}])
def test_the_order_of_an_envelopes_fields_does_not_matter(file: Path, before: dict[str, str]) -> None:
    fields = json.loads(file.read_text())
    reordered = {"later": before, "data": fields.pop("data"), **fields, "type": fields.pop("type")}
    assert decode(json.dumps(reordered).encode()) == decode(file.read_bytes())
