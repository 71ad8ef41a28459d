from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backplane.security.api_key import ApiKey


def test_a_key_is_found_by_its_prefix_and_proved_by_its_secret() -> None:
    key = ApiKey.make()
    parsed = ApiKey.parse(key.reveal())
    assert parsed == key
    assert parsed.matches(key.hashed("pepper"), "pepper")
    assert not parsed.matches(key.hashed("pepper"), "another pepper")
    assert not ApiKey(key.prefix, ApiKey.make().secret).matches(key.hashed("pepper"), "pepper")


def test_a_key_does_not_show_its_secret_by_accident() -> None:
    key = ApiKey.make()
    assert key.secret not in f"{key} {key!r}"


@given(st.text(max_size=120))
def test_what_is_no_key_is_no_key(text: str) -> None:
    assert ApiKey.parse(text) is None
