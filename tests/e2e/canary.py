"""Looks for words in everything that a running Parley keeps."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import redis.asyncio

from backplane.adapters.embedded.valkey import EmbeddedValkey
from backplane.settings import Settings
from backplane.wiring.embedded import owner_database
from tests.e2e.running import Up


class Canary:
    """``word`` is found as it is, and in base64 however it lies in what was encoded."""

    def __init__(self, word: str) -> None:
        self.word = word
        raw = word.encode()
        self.forms = (raw, *(_inner(raw, shift) for shift in range(3)))

    def is_in(self, text: bytes) -> bool:
        return any(form in text for form in self.forms)


def _inner(raw: bytes, shift: int) -> bytes:
    """Those characters of its base64 that depend on nothing before and after it, where ``shift`` bytes (mod 3) are
    before it."""
    before = -shift % 3
    whole = raw[before : before + (len(raw) - before) // 3 * 3]
    return b64encode(whole)


async def in_postgres(parley: Up, canary: Canary) -> AsyncIterator[str]:
    """Tables of any schema that have it in a row."""
    database = owner_database(Settings(data_dir=parley.data))
    try:
        async with database.system() as session:
            # What is stored as bytes reads as text where it is text.
            await session.execute("SET LOCAL bytea_output = 'escape'")
            tables = await session.all(
                "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
                " AND n.nspname NOT LIKE 'pg_t%'"
            )
            assert len(tables) > 20
            forms = [f"%{form.decode()}%" for form in canary.forms]
            for table in tables:
                found = await session.one(
                    f"SELECT count(*) AS rows FROM {table['name']} t WHERE t::text LIKE ANY(CAST(:forms AS text[]))",
                    forms=forms,
                )
                assert found is not None
                if found["rows"]:
                    yield f"{table['name']}: {found['rows']} rows"
    finally:
        await database.close()


async def in_redis(parley: Up, canary: Canary) -> AsyncIterator[str]:
    """Keys that have it, whatever their type."""
    client = redis.asyncio.Redis.from_url(EmbeddedValkey(parley.data).url)
    try:
        async for key in client.scan_iter(count=1000):
            dumped = await client.dump(key)
            entries = await client.xrange(key) if await client.type(key) == b"stream" else []
            if canary.is_in(key + (dumped or b"") + repr(entries).encode()):
                yield key.decode()
    finally:
        await client.aclose()


def in_files(parley: Up, canary: Canary) -> Iterator[Path]:
    """Files of the installation: logs, tables and their write-ahead log, whatever was set down."""
    for file in parley.folder.rglob("*"):
        with suppress(FileNotFoundError):  # Postgres tidies up
            if file.is_file() and canary.is_in(file.read_bytes()):
                yield file
