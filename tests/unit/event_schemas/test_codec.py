from __future__ import annotations

from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_schemas.codec import NewerVersion, Poison, decode, encode
from event_schemas.envelope import Envelope
from event_schemas.generation import GenerationStarted, TokensContent, TokensEmitted
from event_schemas.payload import Payload, Plain
from event_schemas.upcasters import upcast


def tokens(*deltas: str) -> Envelope[TokensEmitted]:
    content = Plain(plain=TokensContent(deltas=deltas).model_dump(mode="json"))
    data = TokensEmitted(generation_id=uuid4(), attempt=1, first_seq=1, count=max(1, len(deltas)), content=content)
    return Envelope.first(data, id=uuid4(), source="/parley/test", tenant_id=uuid4(), actor="operator")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_survives_the_round_trip(deltas: list[str]) -> None:
    envelope = tokens(*deltas)
    assert decode(encode(envelope)) == envelope


@given(st.binary(max_size=200))
def test_any_bytes_are_poison_and_never_another_error(raw: bytes) -> None:
    with pytest.raises((Poison, NewerVersion)):
        decode(raw)


@pytest.mark.parametrize("wire_name", ["tokens.emitted.v4", "thing.invented.v1"])
def test_a_newer_version_is_not_poison(wire_name: str) -> None:
    raw = encode(tokens("a")).replace(b'"type":"tokens.emitted.v3"', f'"type":"{wire_name}"'.encode())
    with pytest.raises(NewerVersion, match=wire_name):
        decode(raw)


def test_poison_names_the_place_and_never_the_content() -> None:
    raw = encode(tokens("a secret")).replace(b'"attempt":1', b'"attempt":"a secret"')
    with pytest.raises(Poison) as caught:
        decode(raw)
    assert "attempt" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_fields_of_a_later_release_are_ignored() -> None:
    envelope = tokens("a")
    assert decode(encode(envelope).replace(b'"attempt":1', b'"attempt":1,"later":true')) == envelope


def test_what_an_envelope_causes_keeps_the_chain() -> None:
    first = tokens("a")
    data = GenerationStarted(generation_id=uuid4(), conversation_id=uuid4(), attempt=1, model="m", worker="w")
    second = first.caused(data, id=uuid4(), source="/parley/test", actor="worker:w")
    third = second.caused(data, id=uuid4(), source="/parley/test")
    assert (first.correlationid, first.causationid) == (first.id, first.id)
    assert (second.correlationid, second.causationid) == (first.id, first.id)
    assert (third.correlationid, third.causationid, third.actor) == (first.id, second.id, "worker:w")
    assert third.tenantid == first.tenantid


def test_upcasting_goes_one_step_at_a_time() -> None:
    steps = {("a.b", 1): lambda data: {**data, "two": 2}, ("a.b", 2): lambda data: {**data, "three": data["two"] + 1}}
    assert upcast("a.b", 1, 3, {"one": 1}, steps) == {"one": 1, "two": 2, "three": 3}
    with pytest.raises(LookupError, match="v3 to v4"):
        upcast("a.b", 1, 4, {}, steps)


def test_a_payload_without_a_wire_name_like_form_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="wire name"):

        class Bad(Payload):
            wire_name: ClassVar[str] = "module.Class"
