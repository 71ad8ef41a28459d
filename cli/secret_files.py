"""`parley secrets`: what the services and servers of a cluster know of one another, one secret a file, made once."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from joserfc import jwt
from joserfc.jwk import OctKey

from backplane.wiring.embedded import ROLES
from cli.failures import ConfigurationError

OWNER = "parley"
"""The user of Postgres that owns the database, and the one of Redis."""

PULSAR_ADMINISTRATOR, PULSAR_SERVICE = "admin", "parley"
"""Roles that the broker knows: who sets the namespace up, and the services."""

CONTAINER_UID = 1000
"""The account that docker-compose.yaml runs containers as unless ``PARLEY_UID`` says otherwise."""

Made = Mapping[str, str]


def write(folder: Path, postgres: str, redis: str) -> list[str]:
    """Write the files that ``folder`` lacks, mode 600, and return their names. What is there stays.

    ``postgres`` is ``host:port/database``, ``redis`` is ``host:port``. A file called as a setting's variable is read by
    services whose ``PARLEY_SECRETS_DIR`` is its folder. All belong to the owner of ``folder``.
    Raises ConfigurationError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat()
        known: dict[str, str] = {}
        made = []
        for name, make in _files(postgres, redis).items():
            file = folder / name
            try:
                known[name] = file.read_text(encoding="ascii")
                if not known[name].strip():
                    raise ConfigurationError(f"{file} is empty: put its secret back, or remove it to have one made")
            except FileNotFoundError:
                known[name] = make(known)
                _write(file, known[name], owner.st_uid, owner.st_gid)
                made.append(name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{folder} cannot be used ({error}): make it yours, or name another folder") from None
    return made


def _files(postgres: str, redis: str) -> dict[str, Callable[[Made], str]]:
    """How each file is made of those before it."""

    def random(made: Made) -> str:
        return secrets.token_hex(32)

    def role_url(role: str) -> Callable[[Made], str]:
        return lambda made: f"postgresql://parley_{role}:{secrets.token_hex(32)}@{postgres}"

    return {
        "postgres_password": random,
        "PARLEY_POSTGRES__URL": lambda made: f"postgresql://{_credentials(made['postgres_password'])}@{postgres}",
        **{f"PARLEY_POSTGRES__ROLE_URLS__{role.upper()}": role_url(role) for role in ROLES},
        "redis_password": random,
        "redis_users.acl": lambda made: _redis_users(made["redis_password"]),
        "PARLEY_REDIS__URL": lambda made: f"redis://{_credentials(made['redis_password'])}@{redis}/0",
        # The broker takes the file's bytes as they are: 32 of them make it HS256.
        "pulsar_token_key": lambda made: secrets.token_urlsafe(24),
        "pulsar_admin_token": lambda made: _token(PULSAR_ADMINISTRATOR, made["pulsar_token_key"]),
        "PARLEY_BUS__PULSAR__TOKEN": lambda made: _token(PULSAR_SERVICE, made["pulsar_token_key"]),
        "PARLEY_SECURITY__KEY_PEPPER": random,
        "PARLEY_SECURITY__MASTER_KEY": random,
        "PARLEY_SECURITY__SIGNING_KEY": random,
        "grafana_password": random,
    }


def _credentials(password: str) -> str:
    """The owner's in a URL. A password that somebody wrote has a line's end, and any characters."""
    return f"{OWNER}:{quote(password.strip(), safe='')}"


def _redis_users(password: str) -> str:
    """Redis's users: ours, and, for its health check, one without a password who may only ask whether it answers."""
    digest = hashlib.sha256(password.strip().encode()).hexdigest()
    return f"user default on nopass resetchannels -@all +ping\nuser {OWNER} on #{digest} ~* &* +@all -@admin\n"


def _token(role: str, key: str) -> str:
    return jwt.encode({"alg": "HS256"}, {"sub": role}, OctKey.import_key(key))


def _write(file: Path, text: str, uid: int, gid: int) -> None:
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    fresh.rename(file)
