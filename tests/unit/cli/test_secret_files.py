"""The secrets of a cluster fit together, are made once, and only their owner reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import redis
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import make_url

from backplane.settings import RoleUrls, Settings
from cli import secret_files
from cli.failures import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def write(folder: Path) -> dict[str, str]:
    secret_files.write(folder, "db:5433/parley", "cache:6380")
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_what_is_there_is_never_written_over(folder: Path) -> None:
    first = write(folder)
    (folder / "PARLEY_REDIS__URL").unlink()
    assert secret_files.write(folder, "db:5433/parley", "cache:6380") == ["PARLEY_REDIS__URL"]
    assert write(folder) == first


def test_only_their_owner_reads_them(folder: Path) -> None:
    write(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_no_secret_is_another(folder: Path) -> None:
    made = write(folder)
    passwords = [made["postgres_password"], made["redis_password"], made["grafana_password"]]
    passwords += [
        str(make_url(made[f"PARLEY_POSTGRES__ROLE_URLS__{role.upper()}"]).password) for role in RoleUrls.model_fields
    ]
    passwords += [made[f"PARLEY_SECURITY__{name}"] for name in ("KEY_PEPPER", "MASTER_KEY", "SIGNING_KEY")]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) == 64


def test_services_read_them_as_settings(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = write(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARLEY_SECRETS_DIR", str(folder))
    settings = Settings()
    assert settings.postgres.url is not None
    owner = make_url(settings.postgres.url.get_secret_value())
    assert (owner.username, owner.password) == ("parley", made["postgres_password"])
    assert (owner.host, owner.port, owner.database) == ("db", 5433, "parley")
    for role in RoleUrls.model_fields:
        url = make_url(getattr(settings.postgres.role_urls, role).get_secret_value())
        assert (url.username, url.host, url.port) == (f"parley_{role}", "db", 5433)
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == f"redis://parley:{made['redis_password']}@cache:6380/0"
    security = settings.security
    assert None not in (security.key_pepper, security.master_key, security.signing_key, settings.bus.pulsar.token)


def test_redis_knows_the_password_by_its_hash_alone(folder: Path) -> None:
    made = write(folder)
    assert hashlib.sha256(made["redis_password"].encode()).hexdigest() in made["redis_users.acl"]
    assert made["redis_password"] not in made["redis_users.acl"]


def test_passwords_that_somebody_wrote_are_what_servers_read_of_them(folder: Path) -> None:
    password = "p@ss/w:rd %41?#"
    folder.mkdir()
    for name in ("postgres_password", "redis_password"):
        (folder / name).write_text(f"{password}\n")
    made = write(folder)
    for name, host in (("PARLEY_POSTGRES__URL", "db"), ("PARLEY_REDIS__URL", "cache")):
        url = make_url(made[name])
        assert (url.username, url.password, url.host) == ("parley", password, host)
    with redis.Redis.from_url(made["PARLEY_REDIS__URL"]) as client:
        assert client.connection_pool.connection_kwargs["password"] == password
    assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in made["redis_users.acl"]
    assert made["postgres_password"] == f"{password}\n"


def test_tokens_name_their_roles(folder: Path) -> None:
    made = write(folder)
    key = OctKey.import_key(made["pulsar_token_key"])
    for name, role in (("pulsar_admin_token", "admin"), ("PARLEY_BUS__PULSAR__TOKEN", "parley")):
        assert jwt.decode(made[name], key).claims == {"sub": role}


def test_an_empty_file_is_named(folder: Path) -> None:
    write(folder)
    (folder / "PARLEY_SECURITY__KEY_PEPPER").write_text("")
    with pytest.raises(ConfigurationError, match="KEY_PEPPER is empty"):
        write(folder)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        write(tmp_path / "file")
