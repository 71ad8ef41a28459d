"""Content under data keys: what the right key gives back, and what nobody else gets."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backplane.ports.key_wrapping import CannotUnwrap
from backplane.security.content import CannotRead, ContentErased, DataKey, DataKeys, opened, opened_row
from backplane.security.sealing import MasterKey
from event_schemas.control_plane import TitleContent
from event_schemas.payload import Plain, Sealed

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
raw_keys = st.binary(min_size=32, max_size=32)
PLACE = "conversation/a/b"
KEY = DataKey(b"k" * 32, PLACE)


@given(texts, raw_keys)
def test_what_was_sealed_opens_with_its_key(text: str, raw: bytes) -> None:
    content = TitleContent.model_construct(title=text)
    sealed = DataKey(raw, PLACE).seal(content)
    assert opened(sealed, DataKey(raw, PLACE), TitleContent).title == text
    assert opened_row(sealed.model_dump(), DataKey(raw, PLACE)) == {"title": text}
    assert text not in sealed.model_dump_json() or len(text) < 8


@given(raw_keys, raw_keys)
def test_another_key_finds_it_erased(one: bytes, other: bytes) -> None:
    sealed = DataKey(one, PLACE).seal(TitleContent(title="t"))
    if one == other:
        return
    with pytest.raises(ContentErased):
        opened(sealed, DataKey(other, PLACE), TitleContent)
    with pytest.raises(ContentErased):
        opened(sealed, None, TitleContent)


def test_the_same_key_elsewhere_does_not_open_it() -> None:
    sealed = KEY.seal(TitleContent(title="t"))
    with pytest.raises(CannotRead):
        opened(sealed, DataKey(b"k" * 32, "conversation/a/c"), TitleContent)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_what_was_changed_is_refused(place: int, by: int) -> None:
    sealed = KEY.seal(TitleContent(title="a title"))
    raw = bytearray(b64decode(sealed.sealed))
    raw[place % len(raw)] ^= by
    # The id of the key is changed like anything else: then it looks like another key's.
    with pytest.raises((CannotRead, ContentErased)):
        opened(sealed.model_copy(update={"sealed": b64encode(raw).decode()}), KEY, TitleContent)


def test_the_commitment_is_of_what_was_sealed() -> None:
    one, other = KEY.seal(TitleContent(title="one")), KEY.seal(TitleContent(title="other"))
    with pytest.raises(CannotRead, match="commits to"):
        opened(Sealed(commitment=other.commitment, sealed=one.sealed), KEY, TitleContent)


@pytest.mark.parametrize("sealed", ["", "not base64!", b64encode(b"short").decode()])
def test_what_is_no_ciphertext_is_refused(sealed: str) -> None:
    with pytest.raises((CannotRead, ContentErased)):
        opened(Sealed(commitment="0" * 64, sealed=sealed), KEY, TitleContent)


def test_the_same_words_are_committed_to_alike_under_one_key_only_and_never_sealed_alike() -> None:
    yes = TitleContent(title="yes")
    first, second, elsewhere = KEY.seal(yes), KEY.seal(yes), DataKey(b"o" * 32, PLACE).seal(yes)
    assert first.commitment == second.commitment != elsewhere.commitment
    assert len({first.sealed, second.sealed, elsewhere.sealed}) == 3


def test_what_older_releases_wrote_needs_no_key() -> None:
    assert opened(Plain(plain={"title": "t"}), None, TitleContent).title == "t"
    assert opened_row(json.loads(Plain(plain={"title": "t"}).model_dump_json()), None) == {"title": "t"}


async def test_a_stored_key_opens_what_it_sealed_in_its_own_place_only() -> None:
    keys, tenant, conversation = DataKeys(MasterKey("ab" * 32)), uuid4(), uuid4()
    key, stored = await keys.make(tenant, conversation)
    sealed = key.seal(TitleContent(title="t"))
    assert opened(sealed, await keys.unwrap(stored, tenant, conversation), TitleContent).title == "t"
    with pytest.raises(CannotUnwrap):
        await keys.unwrap(stored, tenant, uuid4())
    with pytest.raises(CannotUnwrap, match="set the former one again, or restore the database"):
        await DataKeys(MasterKey("cd" * 32)).unwrap(stored, tenant, conversation)
    assert "DataKey(…)" in repr([key])
