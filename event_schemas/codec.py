"""Bytes on the bus ↔ envelopes.

CannotDecode
├── Poison         it will never be readable: dead-letter it
└── NewerVersion   a newer release wrote it: stop reading, keep it
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from pydantic import ValidationError
from pydantic_core import from_json

from event_schemas.envelope import Envelope
from event_schemas.payload import Payload
from event_schemas.registry import BY_BASE, COMMANDS, EVENTS, split
from event_schemas.upcasters import upcast

AnyEnvelope = Envelope[Payload]

_TYPE = re.compile(rb'"type"\s*:\s*"([^"\\]+)"')
_TYPE_WITHIN = 512
"""Bytes from the beginning in which our own encoder writes the type."""

_BY_TYPE: dict[bytes, type[Payload]] = {payload.wire_name.encode(): payload for payload in (*COMMANDS, *EVENTS)}


@cache
def _whole(payload: type[Payload]) -> Callable[[bytes], AnyEnvelope]:
    """What reads a whole envelope with this payload in one go."""
    return Envelope[payload].__pydantic_validator__.validate_json  # type: ignore[valid-type]


class CannotDecode(Exception):
    """Bytes that this release cannot turn into an envelope. The message never contains the bytes."""


class Poison(CannotDecode):
    """Undecodable for ever: not JSON, not an envelope, or a payload that breaks its own schema."""


class NewerVersion(CannotDecode):
    """A well-formed type or version that only a newer release knows."""

    def __init__(self, wire_name: str) -> None:
        super().__init__(f"{wire_name} is newer than this release knows; upgrade this process, then it will be read")
        self.wire_name = wire_name


def encode(envelope: AnyEnvelope) -> bytes:
    """UTF-8 JSON, the CloudEvents JSON format in structured mode."""
    return envelope.__pydantic_serializer__.to_json(envelope, serialize_as_any=True)


def decode(raw: bytes) -> AnyEnvelope:
    """Decode and upcast to the newest version.

    Raises:
        Poison: it can never be read.
        NewerVersion: a newer release wrote it.
    """
    hint = _TYPE.search(raw, 0, _TYPE_WITHIN)
    payload = _BY_TYPE.get(hint[1]) if hint else None
    if payload is not None:
        try:
            envelope = _whole(payload)(raw)
        except ValidationError:
            return _decode_in_steps(raw)
        # The hint may have been somebody's words.
        if envelope.type == payload.wire_name:
            return envelope
    return _decode_in_steps(raw)


def _decode_in_steps(raw: bytes) -> AnyEnvelope:
    """Anything that is not an envelope of ours in its newest version; says what is wrong with it."""
    try:
        fields = from_json(raw)
    except ValueError as error:
        raise Poison(f"not JSON: {error}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise Poison("not an envelope: no `type`")
    try:
        base, version = split(fields["type"])
    except ValueError as error:
        raise Poison(str(error)) from None
    payload = BY_BASE.get(base)
    newest = split(payload.wire_name)[1] if payload else 0
    if payload is None or version > newest:
        raise NewerVersion(fields["type"])
    data = fields.get("data")
    if not isinstance(data, dict):
        raise Poison(f"{fields['type']}: `data` is not an object")
    try:
        data = upcast(base, version, newest, data)
    except (AttributeError, KeyError, TypeError) as error:
        raise Poison(f"{fields['type']}: not what its version says: {type(error).__name__}") from None
    try:
        fields["data"] = payload.model_validate(data)
        fields["type"] = payload.wire_name
        return Envelope[Payload].model_validate(fields)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) + ": " + e["type"] for e in error.errors(include_input=False))
        raise Poison(f"{payload.wire_name}: {places}") from None
