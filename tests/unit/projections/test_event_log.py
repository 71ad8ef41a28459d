import hashlib

import orjson
import pytest
import rfc8785

from backplane.security.canonical import canonical
from backplane.security.chain import GENESIS, Head
from event_schemas.codec import Poison, decode, encode
from event_schemas.control_plane import UserInvited
from projections.event_log import Received, facts_of, lines
from projections.text import storable, storable_json
from projections.verify import Chain
from tests.unit.projections.story import Story, received


def test_each_line_follows_from_the_one_before() -> None:
    story, other = Story(), Story()
    facts = [story.renamed("A"), other.renamed("B"), story.renamed("C")]
    heads = {story.tenant_id: Head(0, GENESIS), other.tenant_id: Head(7, b"x" * 32)}
    made = list(lines(received(facts), heads))
    assert [line.sequence for line in made] == [1, 8, 2]
    said = [rfc8785.dumps(orjson.loads(canonical(encode(fact), committed=True))) for fact in facts]
    assert made[0].hash == hashlib.sha256(bytes(32) + said[0]).digest()
    assert made[1].hash == hashlib.sha256(b"x" * 32 + said[1]).digest()
    assert made[2].hash == hashlib.sha256(made[0].hash + said[2]).digest()
    assert heads == {story.tenant_id: Head(2, made[2].hash), other.tenant_id: Head(8, made[1].hash)}


def test_the_record_names_the_version_that_was_on_the_bus() -> None:
    fields = orjson.loads(encode(Story().renamed("A")))
    fields["data"]["content"] = {"title": "A"}
    raw = orjson.dumps(fields | {"type": "conversation.renamed.v1"})
    upcast = decode(raw)
    assert upcast.type == "conversation.renamed.v2"
    assert facts_of(Received(upcast, raw)).type == "conversation.renamed.v1"


def test_a_chain_that_is_whole_has_no_fault() -> None:
    story = Story()
    made = list(lines(received(story.whole()), {story.tenant_id: Head(0, GENESIS)}))
    rows = [
        line.facts._asdict()
        | {"tenant_id": line.tenant_id, "sequence": line.sequence, "envelope": line.envelope, "hash": line.hash}
        for line in made
    ]
    chain = Chain(story.tenant_id)
    chain.follow(rows[:2], len(rows), {})
    chain.follow(rows[2:], len(rows), {})
    assert chain.fault is None
    assert chain.head == Head(len(rows), made[-1].hash)
    stranger = Chain(Story().tenant_id)
    stranger.follow([rows[0] | {"tenant_id": Story().tenant_id}], len(rows), {})
    assert stranger.fault == (1, "differs from its own envelope in tenant_id")
    short = Chain(story.tenant_id)
    short.follow(rows[:-1], len(rows), {})
    short.follow([], len(rows), {})
    assert short.fault == (len(rows), "is missing")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("a\0b", "a\ufffdb"),
        ("plain", "plain"),
        ({"k\0": ["\0", 1, None]}, {"k\ufffd": ["\ufffd", 1, None]}),
        (1.5, 1.5),
    ],
)
def test_what_postgres_cannot_hold_is_replaced(value: object, stored: object) -> None:
    assert storable_json(value) == stored


def test_replacing_keeps_the_length() -> None:
    assert len(storable("\0\0a")) == 3


def test_half_a_character_is_poison_so_no_fold_ever_sees_it() -> None:
    story = Story()
    raw = encode(story.envelope(UserInvited(user_id=story.user_id, name="HALF"))).replace(b"HALF", b"\\ud800")
    with pytest.raises(Poison):
        decode(raw)
