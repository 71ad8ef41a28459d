from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backplane.security.installation import InstallationSecrets


def test_they_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(InstallationSecrets.load_or_make, [tmp_path / "data"] * 8))
    assert len(made) == 1
    assert (tmp_path / "data" / "secrets.json").stat().st_mode & 0o777 == 0o600
    (secrets,) = made
    assert len(bytes.fromhex(secrets.master_key)) == 32
    assert secrets.master_key not in repr(secrets)


@pytest.mark.parametrize("name", ["master_key", "signing_key"])
def test_an_earlier_installation_keeps_what_it_has_and_gets_new_keys(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secrets.json"
    InstallationSecrets.load_or_make(tmp_path)
    kept = json.loads(file.read_text())
    del kept[name]
    file.write_text(json.dumps(kept))
    upgraded = InstallationSecrets.load_or_make(tmp_path)
    assert json.loads(file.read_text()) == {**kept, name: getattr(upgraded, name)}
    assert InstallationSecrets.load_or_make(tmp_path) == upgraded


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key_pepper": "x"}', "not json"])
def test_what_is_damaged_is_never_made_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="is damaged; restore it from a backup"):
        InstallationSecrets.load_or_make(tmp_path)
    assert file.read_text() == text
