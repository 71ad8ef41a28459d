from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from event_schemas.generation import GenerationCompleted
from event_schemas.schemas import differences, incompatibilities, schema_of, write

PUBLISHED = schema_of(GenerationCompleted)


def changed(**properties: Any) -> dict[str, Any]:
    schema = copy.deepcopy(PUBLISHED)
    for name, value in properties.items():
        if value is None:
            del schema["properties"][name]
        else:
            schema["properties"][name] = value
    return schema


def test_committed_schemas_are_those_of_the_code() -> None:
    assert differences() == []


def test_an_optional_field_may_be_added() -> None:
    assert incompatibilities(PUBLISHED, changed(cached={"type": "integer", "default": 0})) == []


@pytest.mark.parametrize(
    ("now", "place"),
    [
        (changed(attempt=None), "data.attempt: removed"),
        (changed(attempt={"type": "string"}), "data.attempt"),
        (changed(finish_reason={"enum": ["stop"], "type": "string"}), "data.finish_reason"),
        (
            {**changed(new={"type": "integer"}), "required": [*PUBLISHED["required"], "new"]},
            "data.new: added as required",
        ),
        ({**PUBLISHED, "required": PUBLISHED["required"][1:]}, "no longer required"),
    ],
)
def test_an_incompatible_change_is_named_with_its_place(now: dict[str, Any], place: str) -> None:
    found = incompatibilities(PUBLISHED, now)
    assert any(place in one for one in found), found


def test_a_change_inside_a_nested_object_is_found() -> None:
    now = copy.deepcopy(PUBLISHED)
    now["$defs"]["Usage"]["properties"]["input_tokens"] = {"type": "number"}
    assert any("usage.input_tokens" in one for one in incompatibilities(PUBLISHED, now))


def test_writing_refuses_to_overwrite_an_incompatible_schema(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "generation.completed.v3.json"
    file.write_text(file.read_text().replace('"integer"', '"string"'))
    with pytest.raises(ValueError, match="published schemas do not change"):
        write(tmp_path)
