"""The embedded servers, and what a service is told of whichever servers there are."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis.asyncio
import redis.exceptions
from pydantic import SecretStr
from sqlalchemy import make_url

from backplane.adapters.embedded.account import Command, EmbeddedServerError
from backplane.adapters.embedded.postgres import OWNER, EmbeddedPostgres
from backplane.adapters.embedded.pulsar import EmbeddedPulsar
from backplane.adapters.embedded.valkey import EmbeddedValkey
from backplane.adapters.postgres import migrate as schema
from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.security.installation import InstallationSecrets
from backplane.settings import RoleUrls, Settings

__all__ = [
    "ROLES",
    "Command",
    "EmbeddedServer",
    "EmbeddedServerError",
    "completed",
    "embedded_postgres",
    "embedded_valkey",
    "installed",
    "migrate",
    "owner_database",
    "owner_url",
    "role_database",
    "schema_revisions",
    "service_environment",
    "standalone_pulsar",
]

ROLES = tuple(RoleUrls.model_fields)
"""Every role that a service may log in to Postgres as, without the prefix ``parley_``."""

_PING_S = 2.0


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """One server that runs as a child process because no URL names another."""

    name: str
    prepare: Callable[[], None]
    """Make what it needs, and stop one that an earlier run left behind. Blocks. Raises EmbeddedServerError."""
    command: Callable[[], Command]
    ping: Callable[[], Awaitable[None]]
    """Raises ConnectionError until the server does its work."""
    stop_signal: signal.Signals


def embedded_postgres(settings: Settings) -> EmbeddedServer | None:
    """The embedded Postgres, or None where ``postgres.url`` names another. Raises EmbeddedServerError."""
    if settings.postgres.url is not None:
        return None
    server = EmbeddedPostgres(settings.data_dir)
    password = _secrets(settings).postgres_owner

    async def ping() -> None:
        database = PostgresDatabase(server.url(OWNER, password), pool_size=1)
        try:
            await database.ping()
        except Exception as error:
            raise ConnectionError(f"the embedded Postgres does not answer: {type(error).__name__}") from error
        finally:
            await database.close()

    return EmbeddedServer("postgres", lambda: server.prepare(password), server.command, ping, signal.SIGINT)


def standalone_pulsar(folder: Path, port: int, admin_port: int, bookie_port: int) -> EmbeddedServer:
    """A Pulsar broker; `parley up` starts none, since the bus is kept in Postgres where no URL names one."""
    server = EmbeddedPulsar(folder, port, admin_port, bookie_port)

    async def ping() -> None:
        async with httpx.AsyncClient(timeout=_PING_S, trust_env=False) as client:
            try:
                # The last thing that a standalone broker makes before it is ready.
                answer = await client.get(f"{server.admin_url}/admin/v2/namespaces/public")
            except httpx.TransportError as error:
                raise ConnectionError(f"the broker does not answer: {type(error).__name__}") from error
        if not answer.is_success or not answer.json():
            raise ConnectionError("the broker is not ready")

    return EmbeddedServer("pulsar", server.prepare, server.command, ping, signal.SIGTERM)


def embedded_valkey(settings: Settings) -> EmbeddedServer | None:
    """The embedded Valkey, or None where ``redis.url`` names another. Raises EmbeddedServerError."""
    if settings.redis.url is not None:
        return None
    server = EmbeddedValkey(settings.data_dir)

    async def ping() -> None:
        async with _client(server.url) as client:
            try:
                await client.ping()
            except (redis.exceptions.RedisError, OSError) as error:
                raise ConnectionError(f"the embedded Valkey does not answer: {type(error).__name__}") from error

    def prepare() -> None:
        server.prepare()
        _stop_leftover_valkey(server.url)

    return EmbeddedServer("valkey", prepare, server.command, ping, signal.SIGTERM)


def _secrets(settings: Settings) -> InstallationSecrets:
    try:
        return InstallationSecrets.load_or_make(settings.data_dir)
    except (OSError, ValueError) as error:
        raise EmbeddedServerError(f"the secrets of this installation cannot be read: {error}") from None


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(url, socket_timeout=_PING_S, socket_connect_timeout=_PING_S)


def _stop_leftover_valkey(url: str) -> None:
    # A new server takes over the socket's path and the old one would live on, unseen: tell it to go first.
    with redis.Redis.from_url(url, socket_timeout=_PING_S, socket_connect_timeout=_PING_S) as client:
        try:
            client.shutdown(nosave=True)
        except redis.exceptions.TimeoutError:
            raise EmbeddedServerError(
                f"an earlier Valkey on {url} hangs and does not stop; end it, then try again"
            ) from None
        except (redis.exceptions.RedisError, OSError):
            return


def installed(settings: Settings) -> bool:
    """Whether the data folder has what ``completed`` fills settings up with."""
    return InstallationSecrets.are_in(settings.data_dir)


def completed(settings: Settings) -> Settings:
    """``settings`` with what this installation made for itself: role URLs, the Redis URL and the keys of ``security``.

    What the operator set stays as it is. Raises EmbeddedServerError.
    """
    secrets = _secrets(settings)
    configured = settings.postgres.role_urls
    owner = make_url(owner_url(settings))
    urls = {
        role: getattr(configured, role)
        or SecretStr(
            owner.set(username=f"parley_{role}", password=getattr(secrets, role)).render_as_string(hide_password=False)
        )
        for role in ROLES
    }
    redis_url = settings.redis.url or SecretStr(EmbeddedValkey(settings.data_dir).url)
    security = {
        name: getattr(settings.security, name) or SecretStr(getattr(secrets, name))
        for name in ("key_pepper", "master_key", "signing_key")
    }
    return settings.model_copy(
        update={
            "postgres": settings.postgres.model_copy(update={"role_urls": RoleUrls(**urls)}),
            "redis": settings.redis.model_copy(update={"url": redis_url}),
            "security": settings.security.model_copy(update=security),
        }
    )


def service_environment(
    settings: Settings, roles: Iterable[str] = ROLES, *, authenticates: bool = True, has_master_key: bool = True
) -> dict[str, str]:
    """Environment variables that tell a child process which servers there are.

    Only the URLs of ``roles`` are in it, and the key pepper only where it ``authenticates`` callers. The master key is
    in it where it ``has_master_key`` and no file holds it, and the signing key where the projections' URL is.
    Raises EmbeddedServerError.
    """
    whole = completed(settings)
    environment = {"PARLEY_DATA_DIR": str(settings.data_dir.resolve())}
    for role in roles:
        url: SecretStr = getattr(whole.postgres.role_urls, role)
        environment[f"PARLEY_POSTGRES__ROLE_URLS__{role.upper()}"] = url.get_secret_value()
    assert whole.redis.url is not None
    environment["PARLEY_REDIS__URL"] = whole.redis.url.get_secret_value()
    if authenticates:
        assert whole.security.key_pepper is not None
        environment["PARLEY_SECURITY__KEY_PEPPER"] = whole.security.key_pepper.get_secret_value()
    if has_master_key and settings.security.master_key_file is None:
        assert whole.security.master_key is not None
        environment["PARLEY_SECURITY__MASTER_KEY"] = whole.security.master_key.get_secret_value()
    if "projections" in roles:
        assert whole.security.signing_key is not None
        environment["PARLEY_SECURITY__SIGNING_KEY"] = whole.security.signing_key.get_secret_value()
    return environment


def owner_url(settings: Settings) -> str:
    """``postgresql://…`` of the owner: for migrations, rebuilds and operators only."""
    if settings.postgres.url is not None:
        return settings.postgres.url.get_secret_value()
    secrets = _secrets(settings)
    return EmbeddedPostgres(settings.data_dir).url(OWNER, secrets.postgres_owner)


def owner_database(settings: Settings, *, connections: int = 1) -> Database:
    """The database as its owner sees it, across tenants. Never for a request. The caller closes it."""
    return PostgresDatabase(owner_url(settings), pool_size=connections)


def role_database(settings: Settings, role: str) -> Database:
    """The database as one of ``ROLES`` sees it. The caller closes it."""
    url: SecretStr = getattr(completed(settings).postgres.role_urls, role)
    return PostgresDatabase(url.get_secret_value(), pool_size=1)


async def migrate(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this release's schema, and let the roles log in: those that have no URL of their own, and
    those that their URL does not let in, with its password.

    Returns (revision before, revision after). Raises DatabaseUnavailable, EmbeddedServerError.
    """
    passwords = {}
    for role in ROLES:
        url: SecretStr | None = getattr(settings.postgres.role_urls, role)
        if url is None:
            passwords[role] = getattr(_secrets(settings), role)
        elif (password := await _unknown_password(role, url.get_secret_value())) is not None:
            passwords[role] = password
    return await schema.migrate(owner_url(settings), passwords)


async def _unknown_password(role: str, url: str) -> str | None:
    """The password in ``url``, where that is one of our role that it does not let in."""
    made = make_url(url)
    if made.username != f"parley_{role}" or not isinstance(made.password, str):
        return None
    database = PostgresDatabase(url, pool_size=1)
    try:
        await database.ping()
    except DatabaseUnavailable:
        return made.password
    finally:
        await database.close()
    return None


async def schema_revisions(settings: Settings) -> tuple[str | None, str]:
    """(the database's revision, this release's). None: it was never migrated. Raises DatabaseUnavailable."""
    database = owner_database(settings)
    try:
        async with database.system() as session:
            known = await session.one("SELECT to_regclass('public.alembic_version') IS NOT NULL AS known")
            row = None
            if known is not None and known["known"]:
                row = await session.one("SELECT version_num FROM public.alembic_version")
    finally:
        await database.close()
    return (None if row is None else row["version_num"]), schema.newest_revision()
