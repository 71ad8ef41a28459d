"""Every operation of the API pages, asked with somebody else's ids.

What takes an id is read from the OpenAPI document. A parameter or a field that is not known here fails by its name, so
that a new route is walked, or says what it lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from backplane.ports.identifiers import new_id
from tests.e2e.client import Client, Json

PLAIN = frozenset(
    (
        *("limit", "cursor", "after", "format", "group_by", "from", "to", "since", "until", "type", "model"),
        *("idempotency-key", "last-event-id", "traceparent", "batch-metadata", "completion_window"),
        *("state", "code", "error", "prompt", "text", "gpt_type", "api_type"),
        *("X-Slack-Request-Timestamp", "X-Slack-Signature", "X-Signature-Timestamp", "X-Signature-Ed25519"),
        "authorization",
        *("stream", "starting_after", "order"),
    )
)
"""Parameters that name nothing of anybody's. Cursors are places; they are tried by tests of their own."""

_OF_SLACK = {"kind": "slack", "signing_secret": "s3cret-of-a-walk", "bot_token": "xoxb-walk"}
_MESSAGES: Json = {"model": "script", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}

BODIES: dict[str, Json] = {
    "post /v1/chat-tools": {"name": "walked", **_OF_SLACK},
    "put /v1/chat-tools/{chat_tool_id}/secrets": _OF_SLACK,
    "post /v1/messages": {"max_tokens": 5, **_MESSAGES},
    "post /v1/messages/count_tokens": _MESSAGES,
}
"""Operation → a body that it takes, where its own examples make none."""

ASKED_BY_NOBODY = frozenset({"post /v1/session", "post /v1/auth/login"})
"""Who signs in is nobody's yet, and each wrong try makes the next one wait: tests/e2e/test_api_sessions.py."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Ids = Mapping[str, str]
"""Names of parameters and fields → an id that is meant by them."""


@dataclass(frozen=True)
class Ask:
    """One request, and under ``names`` what of it is somebody else's."""

    operation: str
    path: str
    names: tuple[str, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def by(self, client: Client) -> httpx.Response:
        method = self.operation.partition(" ")[0]
        query, headers = dict(self.query) or None, dict(self.headers)
        return await client.http.request(method, self.path, params=query, json=self.body, headers=headers)

    def __str__(self) -> str:
        return f"{self.operation} with another tenant's {', '.join(self.names)}" if self.names else self.operation


def never_was(ids: Ids) -> dict[str, str]:
    """The same names with ids that nobody ever had."""
    return {name: _UUID.sub(lambda _: str(new_id()), value) for name, value in ids.items()}


def uuids(text: str) -> set[str]:
    return set(_UUID.findall(text))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """How an answer refuses, apart from the ids that it was asked with; of one that does not refuse, only that."""
    if answer.is_success:
        return answer.status_code, ""
    if answer.headers["content-type"].startswith("text/"):
        return answer.status_code, _UUID.sub("…", answer.text)
    problem = answer.json()
    problem.pop("request_id", None)
    return answer.status_code, _UUID.sub("…", json.dumps(problem, sort_keys=True))


class Walk:
    """``mine`` and ``theirs`` name the same things of two tenants."""

    def __init__(self, document: Json, mine: Ids) -> None:
        self._document = document
        self._mine = mine

    def operations(self) -> list[str]:
        named = [f"{method} {path}" for path, of_path in self._document["paths"].items() for method in of_path]
        return [operation for operation in named if operation not in ASKED_BY_NOBODY]

    def asks(self, theirs: Ids) -> Iterator[Ask]:
        """Of each operation, each id that it takes, one at a time and the others mine; as it is where it takes none."""
        for path, of_path in self._document["paths"].items():
            for method, described in of_path.items():
                if f"{method} {path}" in ASKED_BY_NOBODY:
                    continue
                yield from self._asks(f"{method} {path}", path, described, theirs)

    def _asks(self, operation: str, path: str, described: Json, theirs: Ids) -> Iterator[Ask]:
        parameters = described.get("parameters", ())
        in_path = [one["name"] for one in parameters if one["in"] == "path"]
        in_query, in_header = (
            [one["name"] for one in parameters if one["in"] == where and one["name"] not in PLAIN]
            for where in ("query", "header")
        )
        schema = self._body_schema(described)
        body = self.body(operation, described)
        in_body = [name for name, of_field in self._fields(schema) if name in theirs or self._takes_id(name, of_field)]
        for name in (*in_path, *in_query, *in_header, *in_body):
            assert name in theirs, (
                f"{operation} takes {name!r}: give `Owned.ids` in tests/e2e/test_api_isolation.py one of a tenant's, "
                "or say in PLAIN of tests/e2e/walk.py that it names nothing of anybody's"
            )
        own = {name: self._mine[name] for name in in_path}
        for name in in_path:
            yield Ask(operation, path.format(**own | {name: theirs[name]}), (name,), body=body)
        for name in in_query:
            yield Ask(operation, path.format(**own), (name,), {name: theirs[name]}, body)
        for name in in_header:
            yield Ask(operation, path.format(**own), (name,), body=body, headers={name: theirs[name]})
        for name in in_body:
            value: Any = [theirs[name]] if self._is_list(schema, name) else theirs[name]
            yield Ask(operation, path.format(**own), (name,), body=(body or {}) | {name: value})
        if not in_path:
            yield Ask(operation, path, (), body=body)

    def body(self, operation: str, described: Json) -> Json | None:
        """One that the operation takes, by its own examples; None where it takes none."""
        schema = self._body_schema(described)
        return BODIES.get(operation, self._example(schema)) if schema else None

    def _at(self, schema: Json) -> Json:
        found: Any = schema
        if "$ref" in schema:
            found = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
        assert isinstance(found, dict)
        return found

    def _body_schema(self, described: Json) -> Json:
        content = described.get("requestBody", {}).get("content", {})
        return self._at(content["application/json"]["schema"]) if "application/json" in content else {}

    def _fields(self, schema: Json) -> list[tuple[str, Json]]:
        return list(schema.get("properties", {}).items())

    def _takes_id(self, name: str, schema: Json) -> bool:
        return name.endswith(("_id", "_ids")) or '"uuid"' in json.dumps(schema)

    def _is_list(self, schema: Json, name: str) -> bool:
        described = schema["properties"][name]
        return any(one.get("type") == "array" for one in (described, *described.get("anyOf", ())))

    def _example(self, schema: Json) -> Json:
        """A body that its own examples make."""
        if "examples" in schema:
            found: Json = schema["examples"][0]
            return found
        required = schema.get("required", ())
        fields = {name: self._at(of_field) for name, of_field in self._fields(schema) if name in required}
        return {name: one["examples"][0] if "examples" in one else self._example(one) for name, one in fields.items()}
