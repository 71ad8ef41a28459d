from __future__ import annotations

import pytest

from backplane.security.sealing import CannotOpen, MasterKey

SECRET = "sk-canary"
KEY, OTHER = MasterKey("0a" * 32), MasterKey("0b" * 32)


def test_what_is_sealed_opens_where_it_belongs() -> None:
    sealed = KEY.seal(SECRET, "here")
    assert SECRET.encode() not in sealed
    assert MasterKey("0A" * 32).open(sealed, "here") == SECRET


def test_the_same_secret_never_looks_the_same() -> None:
    assert len({KEY.seal(SECRET, "here") for _ in range(100)}) == 100


def test_it_opens_nowhere_else() -> None:
    with pytest.raises(CannotOpen, match="belongs elsewhere"):
        KEY.open(KEY.seal(SECRET, "here"), "there")


def test_another_master_key_is_named_by_its_id_and_not_by_itself() -> None:
    with pytest.raises(CannotOpen) as caught:
        OTHER.open(KEY.seal(SECRET, "here"), "here")
    told = str(caught.value)
    assert f"sealed under the master key {KEY.id}, and security.master_key is {OTHER.id}" in told
    assert "set the former one again, or add the secret again" in told
    assert SECRET not in told
    assert "0a0a" not in told + repr(KEY)
    assert "0b0b" not in told + repr(OTHER)


def test_not_one_byte_may_change() -> None:
    sealed = KEY.seal(SECRET, "here")
    for place in range(len(sealed)):
        with pytest.raises(CannotOpen):
            KEY.open(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], "here")
    for length in range(len(sealed)):
        with pytest.raises(CannotOpen):
            KEY.open(sealed[:length], "here")


@pytest.mark.parametrize("text", ["", "0a" * 31, "0a" * 33, "passphrase"])
def test_a_master_key_has_256_bits(text: str) -> None:
    with pytest.raises(ValueError):
        MasterKey(text)
