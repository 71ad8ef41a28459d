"""Postgres keeps tenants apart by itself: each role, logged in by its password, asks without a filter.

What there is comes from the catalog, so a new table, view or function that acts with its owner's rights fails here by
name until it is said who sees what of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres.rebuild import open_shadow_tables
from backplane.ports.identifiers import new_id
from projections.catalog import PROJECTIONS
from projections.rebuild import rebuild
from tests.conftest import ROLES, TestDatabase

OWN = "the rows of the tenant that is set"
PROJECTED = "projections fold every tenant's events into it"
RELAYED = "the relay publishes what every tenant decided, and clears away what is old"
WORKED = "a worker serves every tenant, and claims are its own table"

CLEARED = "the relay deletes what is long over of every tenant, and cannot read whose it is"

Sees = dict[str, str]
"""What a role sees of a table: ``OWN``, ``CLEARED``, or why it sees every tenant's rows. Who is left out may not read
it at all."""

TABLES: dict[str, Sees] = {
    "control.api_keys": {"command_api": OWN, "query_api": OWN},
    "control.collections": {"command_api": OWN, "worker": OWN},
    "control.documents": {"command_api": OWN, "worker": OWN},
    "control.conversation_states": {"command_api": OWN},
    "control.batch_lines": {"command_api": OWN},
    "control.batches": {"command_api": OWN},
    "control.chat_replies": {"command_api": OWN},
    "control.chat_threads": {"command_api": OWN},
    "control.chat_tools": {"command_api": OWN},
    "control.data_keys": {
        "command_api": OWN,
        "query_api": OWN,
        "worker": "a worker opens the prompts of every tenant",
    },
    "control.fetching": {"command_api": OWN, "worker": OWN},
    "control.idempotency": {"command_api": OWN, "relay": RELAYED},
    "control.invitations": {"command_api": OWN, "relay": CLEARED},
    "control.limit_warnings": {"command_api": OWN},
    "control.limits": {"command_api": OWN, "query_api": OWN},
    "control.outbox": {"relay": RELAYED},
    "control.persona_versions": {"command_api": OWN},
    "control.personas": {"command_api": OWN},
    "control.provider_keys": {
        "command_api": OWN,
        "query_api": OWN,
        "worker": "a worker asks providers with the keys of every tenant",
    },
    "control.sessions": {"command_api": OWN, "query_api": OWN, "relay": CLEARED},
    "control.sites": {"command_api": OWN, "worker": OWN},
    "control.tenants": {"command_api": OWN, "query_api": OWN},
    "control.users": {"command_api": OWN, "query_api": OWN},
    "control.webhooks": {"command_api": OWN},
    "knowledge.chunks": {"query_api": OWN, "worker": OWN},
    "knowledge.ingestions": {"worker": OWN},
    "read_models.batch_failures": {"query_api": OWN, "projections": PROJECTED},
    "read_models.batches": {"query_api": OWN, "projections": PROJECTED},
    "read_models.checkpoints": {"query_api": OWN, "projections": "the projections sign every tenant's record"},
    "read_models.collections": {
        **dict.fromkeys(("command_api", "query_api", "worker"), OWN),
        "projections": PROJECTED,
    },
    "read_models.documents": {"query_api": OWN, "worker": OWN, "projections": PROJECTED},
    "read_models.conversation_summaries": {**dict.fromkeys(("query_api", "worker"), OWN), "projections": PROJECTED},
    "read_models.conversations": {
        **dict.fromkeys(("command_api", "query_api", "worker"), OWN),
        "projections": PROJECTED,
    },
    "read_models.event_log": {"command_api": OWN, "query_api": OWN, "projections": PROJECTED},
    "read_models.generations": {"command_api": OWN, "query_api": OWN, "projections": PROJECTED},
    "read_models.messages": {**dict.fromkeys(("command_api", "query_api", "worker"), OWN), "projections": PROJECTED},
    "read_models.persona_versions": {"query_api": OWN, "projections": PROJECTED},
    "read_models.tenant_heads": {"query_api": OWN, "projections": PROJECTED},
    "read_models.token_batches": {"query_api": OWN, "projections": PROJECTED},
    "read_models.usage": {"query_api": OWN, "projections": PROJECTED},
    "work.claims": {"worker": WORKED},
}

VALUES: dict[str, dict[str, Any]] = {
    "control.api_keys": {"role": "member"},
    "control.conversation_states": {"state": "ended"},
    "control.batch_lines": {"sealed": "{}"},
    "control.chat_replies": {"sealed": b"sealed", "ended_at": None},
    "control.chat_tools": {"kind": "slack"},
    "control.limits": {"dimension": "user"},
    "control.provider_keys": {"sealed": b"sealed"},
    "control.sessions": {"method": "password", "user_id": new_id()},
    "control.webhooks": {"sealed": b"sealed"},
    "read_models.checkpoints": {"kind": "checkpoint"},
}
"""Columns that a check wants to have certain values; of others their type is enough."""

APIS = ("command_api", "query_api")

WITHOUT_TENANT = {
    "bus.topics": "names of topics and how many partitions they have",
    "control.sign_in_attempts": "keyed hashes of who tried to sign in, who is nobody yet",
    "read_models.positions": "how far the projections have come on each partition",
}
"""What the APIs may read that belongs to no tenant. Messages of the bus are not among it."""

WITH_OWNERS_RIGHTS = {
    "bus.backlog": "counts messages, and shows none",
    "bus.heads": "counts messages, and shows none",
    "bus.make_day": "makes an empty table",
    "bus.publish": "appends, and returns positions",
    "control.add_data_keys": "keys of several tenants' prompts are stored in one commit; returns what it was given",
    "control.content_due": "names the conversations of any tenant whose content is to be erased by age",
    "control.find_invitation": "who accepts is looked up by the token before the tenant is known",
    "control.find_key": "who calls with a key is looked up by it before its tenant is known",
    "control.find_limits": "a tenant's limits and the platform's, which hold for it",
    "control.find_session": "who calls with a session is looked up by it before its tenant is known",
    "control.find_sign_in": "who signs in is looked up by the address before the tenant is known",
    "control.is_tenant_named": "whether a name is taken",
    "control.newest_data_key": "a wrapped key to try the master key on, which tells nothing to who has another",
    "control.queue_place": "counts those who wait before one's own prompt, and names nobody",
}
"""Functions that the APIs may call and that see past their caller's rows."""

_RELATIONS = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1
"""
_NEEDED = """
SELECT a.attname, format_type(a.atttypid, NULL) AS type, t.typcategory = 'A' AS is_array FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
  AND a.attidentity = '' AND a.attgenerated = ''
"""
_MAY = """
SELECT a.attname FROM pg_attribute a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
  AND has_column_privilege(current_user, a.attrelid, a.attnum, $2)
"""


def value_of(type: str, tenant_id: UUID) -> object:
    match type:
        case "uuid":
            return new_id()
        case "text":
            return f"of {tenant_id} {new_id()}"
        case "bytea":
            return new_id().bytes
        case "integer" | "bigint" | "smallint" | "numeric" | "double precision":
            return 1
        case "boolean":
            return False
        case "timestamp with time zone":
            return datetime.now(UTC)
        case "date":
            return datetime.now(UTC).date()
        case "jsonb":
            return "[]"
        case "tsvector":
            return "a word"
        case "vector":
            return "[0.6,0.8]"
        case _:
            raise AssertionError(f"say here what a value of the type {type} is")


async def row_of(owner: asyncpg.Connection[Any], table: str, tenant_id: UUID) -> dict[str, object]:
    """A new row of the tenant, with what has to be in it."""
    needed = await owner.fetch(_NEEDED, table)
    row = {each["attname"]: [] if each["is_array"] else value_of(each["type"], tenant_id) for each in needed}
    return row | VALUES.get(table, {}) | {"tenant_id": tenant_id}


async def insert(connection: asyncpg.Connection[Any], table: str, row: dict[str, object]) -> None:
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(map(_quoted, row))}) VALUES ({places})", *row.values())


def _quoted(column: str) -> str:
    return f'"{column}"'


class Filled:
    """A database with a row of each of two tenants in every table that has a tenant."""

    def __init__(self, database: TestDatabase, owner: asyncpg.Connection[Any]) -> None:
        self.database = database
        self.owner = owner
        self.mine, self.theirs = new_id(), new_id()
        self.rows: dict[str, dict[str, object]] = {}
        """Mine, by table."""

    async def fill(self) -> None:
        # What a row refers to need not be there.
        await self.owner.execute("SET session_replication_role = replica")
        for table in TABLES:
            for tenant_id in (self.theirs, self.mine):
                await insert(self.owner, table, await row_of(self.owner, table, tenant_id))
            (stored,) = await self.owner.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1", self.mine)
            self.rows[table] = dict(stored)

    @contextlib.asynccontextmanager
    async def as_role(self, role: str, tenant_id: UUID | None) -> AsyncIterator[Session]:
        connection = await asyncpg.connect(self.database.role_url(role))
        try:
            yield Session(connection, tenant_id)
        finally:
            await connection.close()


class Session:
    """One connection of a role. Each question is a transaction that is rolled back."""

    def __init__(self, connection: asyncpg.Connection[Any], tenant_id: UUID | None) -> None:
        self.connection = connection
        self._tenant_id = tenant_id

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            if self._tenant_id is not None:
                await self.connection.execute("SELECT set_config('parley.tenant', $1, true)", str(self._tenant_id))
            yield
        finally:
            await transaction.rollback()

    async def tenants_in(self, table: str) -> set[UUID] | str:
        """Whose rows a query without a filter finds; ``unreadable`` where it is refused."""
        async with self.transaction():
            try:
                return {row[0] for row in await self.connection.fetch(f"SELECT tenant_id FROM {table}")}
            except asyncpg.InsufficientPrivilegeError:
                return "unreadable"

    async def changed(self, sql: str, *values: object) -> int:
        async with self.transaction():
            return int((await self.connection.execute(sql, *values)).rpartition(" ")[2])

    async def may(self, table: str, what: str) -> list[str]:
        """Columns of the table for which the role has this right."""
        usable = "SELECT has_schema_privilege(current_user, split_part($1, '.', 1), 'USAGE')"
        if not await self.connection.fetchval(usable, table):
            return []
        return [row[0] for row in await self.connection.fetch(_MAY, table, what)]


@pytest.fixture(params=["as migrated", "after a rebuild"])
async def filled(request: pytest.FixtureRequest, database: TestDatabase) -> AsyncIterator[Filled]:
    if request.param == "after a rebuild":
        connected = PostgresDatabase(database.owner_url, pool_size=3)
        shadow = partial(open_shadow_tables, database.owner_url)
        for projection in PROJECTIONS:
            report = await rebuild(connected, shadow, projection.name, check=False, progress=lambda _: None)
            assert report.swapped
        await connected.close()
    owner = await asyncpg.connect(database.owner_url)
    made = Filled(database, owner)
    try:
        await made.fill()
        yield made
    finally:
        await owner.close()


async def test_it_is_said_of_every_table_with_a_tenant_who_sees_what_of_it(database: TestDatabase) -> None:
    owner = await asyncpg.connect(database.owner_url)
    try:
        found = {row[0] for row in await owner.fetch(_RELATIONS)}
    finally:
        await owner.close()
    assert found - TABLES.keys() == set(), "add these to TABLES: which roles see what of them"
    assert TABLES.keys() - found == set(), "these are no more"


@pytest.mark.parametrize("role", ROLES)
async def test_a_query_without_a_filter_finds_no_other_tenant(filled: Filled, role: str) -> None:
    seen: dict[str, dict[str, object]] = {}
    for name, tenant_id in (("nobody", None), ("me", filled.mine), ("them", filled.theirs)):
        async with filled.as_role(role, tenant_id) as session:
            seen[name] = {table: await session.tenants_in(table) for table in TABLES}
    both = {filled.mine, filled.theirs}
    for table, sees in TABLES.items():
        found = [seen[name][table] for name in ("nobody", "me", "them")]
        if sees.get(role, CLEARED) == CLEARED:
            assert found == ["unreadable"] * 3, table
        elif sees[role] == OWN:
            assert found == [set(), {filled.mine}, {filled.theirs}], table
        else:
            assert found == [both] * 3, table


@pytest.mark.parametrize("role", ROLES)
async def test_rows_of_another_tenant_are_not_written(filled: Filled, role: str) -> None:
    mine = {table for table, sees in TABLES.items() if sees.get(role, OWN) == OWN}
    async with filled.as_role(role, filled.mine) as session, filled.as_role(role, None) as nobody:
        for table in sorted(mine):
            writable = set(await session.may(table, "INSERT"))
            if writable:
                for each, tenant_id in ((session, filled.theirs), (nobody, filled.mine), (nobody, filled.theirs)):
                    row = await row_of(filled.owner, table, tenant_id)
                    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                        async with each.transaction():
                            await insert(each.connection, table, row)
                # What keeps a row of one's own out is at most what it refers to, or that it is there.
                row = await row_of(filled.owner, table, filled.mine)
                with contextlib.suppress(asyncpg.ForeignKeyViolationError, asyncpg.UniqueViolationError):
                    async with session.transaction():
                        await insert(session.connection, table, row)
            for column in await session.may(table, "UPDATE"):
                if column == "tenant_id":
                    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                        await session.changed(f"UPDATE {table} SET tenant_id = $1", filled.theirs)
                else:
                    value = filled.rows[table][column]
                    assert await session.changed(f"UPDATE {table} SET {_quoted(column)} = $1", value) == 1, table
                    assert await nobody.changed(f"UPDATE {table} SET {_quoted(column)} = $1", value) == 0, table
            deletes = "SELECT has_table_privilege(current_user, $1, 'DELETE')"
            if await session.may(table, "SELECT") and await session.connection.fetchval(deletes, table):
                with contextlib.suppress(asyncpg.ForeignKeyViolationError):
                    assert await session.changed(f"DELETE FROM {table}") == 1, table
                assert await nobody.changed(f"DELETE FROM {table}") == 0, table


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_owns_nothing_and_is_nobody_else(filled: Filled, role: str) -> None:
    async with filled.as_role(role, None) as session:
        assert await session.connection.fetchrow(
            """SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
                 (SELECT count(*) FROM pg_auth_members m WHERE m.member = r.oid OR m.roleid = r.oid) AS memberships,
                 (SELECT count(*) FROM pg_shdepend d WHERE d.refobjid = r.oid AND d.deptype = 'o') AS owned
               FROM pg_roles r WHERE rolname = current_user"""
        ) == (False, False, False, False, False, 0, 0)
        for sql in (
            "SET row_security = off; SELECT tenant_id FROM read_models.messages",
            "SET ROLE parley_relay" if role != "relay" else "SET ROLE parley_worker",
            "ALTER TABLE read_models.messages DISABLE ROW LEVEL SECURITY",
            "SET session_replication_role = replica",
        ):
            if role == "projections" and sql.startswith("SET row_security"):
                continue  # its policy lets it see every row, and so does this
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.connection.execute(sql)


@pytest.mark.parametrize("role", APIS)
async def test_what_the_apis_read_that_has_no_tenant_is_known(filled: Filled, role: str) -> None:
    async with filled.as_role(role, None) as session:
        readable = await session.connection.fetch(
            """SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
                 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                 AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')"""
        )
        assert {row[0] for row in readable} - TABLES.keys() <= WITHOUT_TENANT.keys()
        # Messages of all tenants are in these.
        for table in ("bus.messages", "bus.deliveries", "bus.progress", "bus.subscriptions"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await session.connection.fetch(f"SELECT * FROM {table}")


@pytest.mark.parametrize("role", APIS)
async def test_what_acts_with_the_owners_rights_is_known(filled: Filled, role: str) -> None:
    of_definers = """SELECT p.oid::regproc::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                     WHERE p.prosecdef AND n.nspname !~ '^pg_' AND has_function_privilege($1, p.oid, 'EXECUTE')"""
    callable_by_role = {row[0] for row in await filled.owner.fetch(of_definers, f"parley_{role}")}
    assert callable_by_role <= WITH_OWNERS_RIGHTS.keys(), "say why, in WITH_OWNERS_RIGHTS"
    assert await filled.owner.fetch(of_definers.replace("$1", "0::oid")) == [], "everybody may call these"
    unpinned = await filled.owner.fetch(
        """SELECT oid::regproc::text FROM pg_proc WHERE prosecdef
           AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c LIKE 'search_path=%')"""
    )
    assert unpinned == [], "these look up names as their caller wishes"
