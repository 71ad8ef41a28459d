"""Checks of Postgres, its schema and roles, Valkey or Redis, and the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from backplane.ports.bus import BusError, UnknownTopic
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import StreamUnavailable
from backplane.settings import Settings
from backplane.wiring.embedded import (
    ROLES,
    EmbeddedServerError,
    completed,
    owner_database,
    role_database,
    schema_revisions,
)
from backplane.wiring.operations import operator_bus, redis_ping, topics
from backplane.wiring.services import NotConfigured, open_data_keys, try_master_key
from cli.attachment import servers as attached
from cli.failures import CommandError
from cli.finding import FAIL, OK, WARN, Finding


async def servers(settings: Settings) -> AsyncIterator[Finding]:
    """What answers. Embedded servers that do not run are started for as long as it takes."""
    embedded = settings.postgres.url is None
    if embedded and not (settings.data_dir / "postgres" / "PG_VERSION").exists():
        yield Finding(OK, "Postgres", "the embedded one; `parley up` makes it at the first start")
        return
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(attached(settings))
        except (CommandError, EmbeddedServerError) as error:
            yield Finding(FAIL, "embedded servers", str(error), f"see the logs in {settings.data_dir}/logs")
            return
        async for finding in _postgres(settings, embedded=embedded):
            yield finding
        yield await _redis(settings)


async def _postgres(settings: Settings, *, embedded: bool) -> AsyncIterator[Finding]:
    name = "the embedded one" if embedded else "the one that postgres.url names"
    problem = await _silent(owner_database(settings))
    if problem:
        yield Finding(FAIL, "Postgres", f"{name}: {problem}", "check postgres.url, and that the server runs")
        return
    yield Finding(OK, "Postgres", f"{name} answers")
    has, wanted = await schema_revisions(settings)
    if has != wanted:
        yield Finding(FAIL, "schema", f"{has or 'not made yet'}; this release needs {wanted}", "run `parley migrate`")
        return
    yield Finding(OK, "schema", f"revision {has}")
    yield await _vectors(settings)
    for role in ROLES:
        problem = await _silent(role_database(settings, role))
        if problem:
            setting = f"postgres.role_urls.{role}"
            yield Finding(FAIL, f"role {role}", problem, f"check {setting}, or unset it and run `parley migrate`")
        else:
            yield Finding(OK, f"role {role}", "logs in")
    yield await _master_key(settings)
    yield await _bus(settings)


async def _vectors(settings: Settings) -> Finding:
    database = owner_database(settings)
    try:
        (row,) = await database.at_once(
            "SELECT to_regclass('knowledge.chunks') IS NOT NULL AS there,"
            " (SELECT coalesce(installed_version, default_version) FROM pg_available_extensions"
            " WHERE name = 'vector') AS version"
        )
    except DatabaseUnavailable as error:
        return Finding(WARN, "pgvector", str(error), "run `parley doctor` again when it answers")
    finally:
        await database.close()
    if row["there"]:
        return Finding(OK, "pgvector", f"version {row['version']}; collections can be made")
    has = "not there" if row["version"] is None else f"version {row['version']} is there"
    advice = "install pgvector 0.8 or newer, create the extension `vector`, and run `parley migrate`"
    return Finding(WARN, "pgvector", f"{has}, so no collection can be made", advice)


async def _master_key(settings: Settings) -> Finding:
    whole = completed(settings)
    database = role_database(settings, "command_api")
    try:
        async with open_data_keys(whole) as data_keys:
            tried = await try_master_key(database, data_keys, makes_keys=True)
    except NotConfigured as error:
        advice = "check security.master_key and security.master_key_file, and the settings security.vault_…"
        return Finding(FAIL, "master key", str(error), advice)
    except (DatabaseUnavailable, WrappingUnavailable) as error:
        return Finding(WARN, "master key", str(error), "run `parley doctor` again when it answers")
    finally:
        await database.close()
    return Finding(
        OK, "master key", "opens the newest data key" if tried else "there is nothing yet that it has to open"
    )


async def _bus(settings: Settings) -> Finding:
    pulsar = settings.bus.pulsar
    name = (
        "the one in Postgres" if pulsar.url is None else f"Pulsar, {pulsar.tenant}/{pulsar.namespace} at {pulsar.url}"
    )
    try:
        async with operator_bus(settings) as bus:
            for topic in topics(settings):
                await bus.heads(topic)
    except BusError as error:
        advice = "check that the server runs, and the settings under bus"
        if isinstance(error, UnknownTopic):
            advice = "run `parley migrate`" if pulsar.url is None else "run `parley pulsar setup`"
        return Finding(FAIL, "bus", f"{name}: {error}", advice)
    return Finding(OK, "bus", f"{name} answers")


async def _redis(settings: Settings) -> Finding:
    name = "the embedded Valkey" if settings.redis.url is None else "the one that redis.url names"
    try:
        await redis_ping(completed(settings))
    except StreamUnavailable as error:
        return Finding(
            WARN, "Redis", f"{name}: {error}", "streams are served from Postgres meanwhile; check that it runs"
        )
    return Finding(OK, "Redis", f"{name} answers")


async def _silent(database: Database) -> str | None:
    """Why the database does not answer; None if it does."""
    try:
        await database.ping()
    except DatabaseUnavailable as error:
        return str(error)
    finally:
        await database.close()
    return None
