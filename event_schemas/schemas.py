"""JSON Schemas of every payload, committed, and the check that a published one is never changed incompatibly.

python -m event_schemas.schemas           write what is missing or changed compatibly
python -m event_schemas.schemas --check   exit 1, naming each difference, unless files and code agree
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from event_schemas.payload import Payload
from event_schemas.registry import COMMANDS, EVENTS

Schema = dict[str, Any]

FOLDER = Path(__file__).parent / "json_schemas"


def schema_of(payload: type[Payload]) -> Schema:
    """The JSON Schema (2020-12) of a payload, as a document of its own."""
    schema = payload.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:parley:schema:{payload.wire_name}",
        **schema,
    }


def incompatibilities(published: Schema, now: Schema) -> list[str]:
    """What a reader of ``published`` could not cope with in ``now``, each with its place; empty where it can.

    A published version may only gain optional fields, descriptions and titles. Anything else is a new version.
    """
    found: list[str] = []
    _compare(_resolved(published, published), _resolved(now, now), "data", found)
    return found


def _resolved(node: Any, root: Schema) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            return _resolved({**root["$defs"][name], **{k: v for k, v in node.items() if k != "$ref"}}, root)
        ignored = ("$defs", "$id", "$schema", "title", "description", "examples")
        return {
            key: (
                {name: _resolved(value, root) for name, value in node[key].items()}
                if key == "properties"
                else _resolved(value, root)
            )
            for key, value in node.items()
            if key not in ignored or key == "properties"
        }
    if isinstance(node, list):
        return [_resolved(one, root) for one in node]
    return node


def _compare(published: Any, now: Any, place: str, found: list[str]) -> None:
    if not isinstance(published, dict) or not isinstance(now, dict):
        if published != now:
            found.append(f"{place}: {json.dumps(published)} became {json.dumps(now)}")
        return
    before, after = published.get("properties", {}), now.get("properties", {})
    for name in before.keys() | after.keys():
        if name not in after:
            found.append(f"{place}.{name}: removed")
        elif name in before:
            _compare(before[name], after[name], f"{place}.{name}", found)
        elif name in now.get("required", []) and "default" not in after[name]:
            found.append(f"{place}.{name}: added as required")
    for name in published.get("required", []):
        if name in after and name not in now.get("required", []):
            found.append(f"{place}.{name}: no longer required")
    for name in now.get("required", []):
        if name in before and name not in published.get("required", []):
            found.append(f"{place}.{name}: became required")
    others = (published.keys() | now.keys()) - {"properties", "required"}
    for key in sorted(others):
        if key not in published or key not in now:
            found.append(f"{place}: {key} {'removed' if key in published else 'added'}")
        else:
            _compare(published[key], now[key], f"{place}.{key}", found)


def differences(folder: Path = FOLDER) -> list[str]:
    """Where the committed files and the code disagree; empty where they agree."""
    found = []
    for payload in (*COMMANDS, *EVENTS):
        file = folder / f"{payload.wire_name}.json"
        now = schema_of(payload)
        if not file.exists():
            found.append(f"{file.name}: missing; run `python -m event_schemas.schemas`")
            continue
        published = json.loads(file.read_text())
        broken = incompatibilities(published, now)
        found += [f"{file.name}: {one}; published schemas do not change, make a new version" for one in broken]
        if not broken and published != now:
            found.append(f"{file.name}: out of date; run `python -m event_schemas.schemas`")
    return found


def write(folder: Path = FOLDER) -> list[str]:
    """Write all files. Returns the names of those that changed.

    Raises ValueError, and writes nothing, where a published schema changed incompatibly.
    """
    broken = [one for one in differences(folder) if "published schemas do not change" in one]
    if broken:
        raise ValueError("\n".join(broken))
    changed = []
    for payload in (*COMMANDS, *EVENTS):
        file = folder / f"{payload.wire_name}.json"
        text = json.dumps(schema_of(payload), indent=2, sort_keys=True) + "\n"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            changed.append(file.name)
    return changed


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        wrong = differences()
        sys.stderr.write("".join(f"{line}\n" for line in wrong))
        sys.exit(1 if wrong else 0)
    for name in write():
        sys.stdout.write(f"wrote {name}\n")
