"""Personas, opened for who may see them: all that they say for who manages them, the rest for who may ask as them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from backplane.ports.database import Row
from backplane.security.content import CannotRead, ContentErased
from backplane.security.principal import Principal
from event_schemas.personas import PersonaContent
from query_api import persona_sql
from query_api.freshness import NoSuch, found
from query_api.opening import Opener, unreadable
from query_api.service import QueryPorts


@dataclass(frozen=True, slots=True)
class PersonaVersion:
    persona_id: UUID
    name: str
    version: int
    saved_by: str
    saved_at: datetime
    content: PersonaContent | None
    """None: it is unreadable, which was logged."""


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two versions. ``field`` is a path; of variables and tools by their names."""

    field: str
    before: Any
    after: Any


async def all_of(ports: QueryPorts, principal: Principal) -> list[PersonaVersion]:
    """The newest version of each that ``principal`` may see. Raises DatabaseUnavailable, WrappingUnavailable."""
    async with ports.database.tenant(principal.tenant_id) as session:
        rows = await persona_sql.newest(session)
    opened = [await _opened(ports, principal, row) for row in rows]
    return [one for one in opened if one is not None and _may_see(principal, one)]


async def one(ports: QueryPorts, principal: Principal, name: str, version: int | None = None) -> PersonaVersion:
    """This version, or the newest.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable, WrappingUnavailable.
    """

    async def read() -> Row | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await persona_sql.version(session, name, version)

    persona = await _opened(ports, principal, await found(ports, "persona", read))
    if persona is None or not _may_see(principal, persona):
        raise NoSuch("persona")
    return persona


async def versions(ports: QueryPorts, principal: Principal, name: str) -> list[Row]:
    """The newest first. Raises as ``one``."""

    async def read() -> list[Row] | None:
        async with ports.database.tenant(principal.tenant_id) as session:
            return await persona_sql.versions(session, name) or None

    return await found(ports, "persona", read)


def changes(before: PersonaContent, after: PersonaContent) -> list[Change]:
    """Field by field, in the order of their paths."""
    old, new = dict(_leaves("", before.as_given())), dict(_leaves("", after.as_given()))
    both = sorted(old.keys() | new.keys())
    return [Change(path, old.get(path), new.get(path)) for path in both if old.get(path) != new.get(path)]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case dict() if value:
            for name, inner in value.items():
                yield from _leaves(f"{path}.{name}" if path else name, inner)
        case list() if value and all(isinstance(inner, dict) and "name" in inner for inner in value):
            for inner in value:
                yield from _leaves(f"{path}.{inner['name']}", {**inner})
        case _:
            yield path, value


def _may_see(principal: Principal, persona: PersonaVersion) -> bool:
    if principal.may("personas.manage"):
        return True
    if persona.content is None or (principal.personas is not None and persona.name not in principal.personas):
        return False
    return persona.content.users is None or principal.user_id in persona.content.users


async def _opened(ports: QueryPorts, principal: Principal, row: Row) -> PersonaVersion | None:
    """None where it was removed a moment ago."""
    opener = await Opener.of(ports.data_keys, principal.tenant_id, row["persona_id"], row["wrapped"])
    content: PersonaContent | None = None
    try:
        content = PersonaContent.model_validate(opener.open(row["content"]))
    except ContentErased:
        return None
    except CannotRead as error:
        unreadable(f"persona:{row['persona_id']}", error)
    return PersonaVersion(row["persona_id"], row["name"], row["version"], row["saved_by"], row["saved_at"], content)
