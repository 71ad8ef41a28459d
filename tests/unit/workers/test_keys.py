from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from backplane.settings.pools import PoolSettings
from workers.keys import UnusableKey, configured_keys, no_key


def pool(*keys: str, base_url: str | None = None) -> PoolSettings:
    return PoolSettings(backend="openai", models=("m",), keys=tuple(map(SecretStr, keys)), base_url=base_url)


def test_keys_stand_in_the_settings_the_environment_and_files(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-from-file\n")
    keys = configured_keys("p", pool("sk-itself", "env:MINE", f"file:{file}", "sk-itself"), {"MINE": "sk-of-mine"})
    assert [key.secret for key in keys] == ["sk-itself", "sk-of-mine", "sk-from-file"]


def test_without_any_the_usual_variable_is_taken() -> None:
    assert [key.secret for key in configured_keys("p", pool(), {"OPENAI_API_KEY": " sk-usual "})] == ["sk-usual"]


def test_a_server_of_ones_own_needs_none() -> None:
    assert len(configured_keys("p", pool(base_url="http://127.0.0.1:8080/v1"), {})) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("env:MINE",), "names the environment variable MINE, which is not set"),
        (("file:/nowhere/key",), "names the file /nowhere/key, which cannot be read: FileNotFoundError"),
    ],
)
def test_what_cannot_be_found_is_named(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnusableKey, match=message):
        configured_keys("p", pool(*keys), {})


def test_where_there_is_none_at_all_every_way_is_named() -> None:
    assert configured_keys("p", pool(), {}) == ()
    assert str(no_key("p", pool())) == (
        "pool 'p' has no key: set OPENAI_API_KEY, or `keys` of [pools.p], or add one with"
        " `parley provider-key add --pool p`"
    )


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(" \n")
    with pytest.raises(UnusableKey, match="which is empty"):
        configured_keys("p", pool(f"file:{tmp_path / 'key'}"), {})
