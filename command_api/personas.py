"""Personas of a tenant: saved, restored and removed. Each change is a command with an event, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.budget import Scope
from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security.content import DataKey
from backplane.settings import Settings
from command_api import known_limits, outbox
from command_api.admission import Refused
from command_api.content_keys import ContentKeys
from command_api.known_personas import CHANGED, NoSuchPersona, definition
from command_api.limits import set_within
from command_api.persona import Persona
from event_schemas.envelope import Envelope
from event_schemas.limits import Limits
from event_schemas.payload import Payload, PersonaRef
from event_schemas.personas import PersonaContent, PersonaRemoved, PersonaSaved, RemovePersona, SavePersona

SOURCE = "/parley/command_api"

MOST_PERSONAS = 1000
"""Of a tenant."""


class Changed(Exception):
    """The newest version is another than was expected; 0: there is no such persona."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the newest version is {version}")
        self.version = version


class NoSuchUser(LookupError):
    """One of those who may ask as it is not there, or somebody else's."""


@dataclass(frozen=True, slots=True)
class Saved:
    ref: PersonaRef
    unused: tuple[str, ...]
    """Variables that no template names."""
    event_id: UUID | None
    """None: that is what the newest version says already."""


class Personas:
    """Everything raises DatabaseUnavailable, WrappingUnavailable, CannotUnwrap."""

    def __init__(self, database: Database, signals: Signals, keys: ContentKeys, settings: Settings) -> None:
        self._database = database
        self._signals = signals
        self._keys = keys
        self._settings = settings

    async def save(
        self, tenant_id: UUID, name: str, content: PersonaContent, *, actor: str, expected_version: int | None = None
    ) -> Saved:
        """From now on ``name`` stands for this definition: a new version, or the newest one where that says the same.

        Raises InvalidPersona, Refused, Changed, NoSuchUser.
        """
        persona = self._checked(content)
        async with self._database.tenant(tenant_id) as session:
            await _one_at_a_time(session)
            row = await _find(session, name)
            if expected_version not in (None, 0 if row is None else row["version"]):
                raise Changed(0 if row is None else row["version"])
            await _check_users(session, content)
            if row is None:
                persona_id, version = new_id(), 1
                key = await self._add(session, persona_id, name)
            else:
                persona_id, version = row["persona_id"], row["version"] + 1
                key = await self._keys.of_conversation(tenant_id, persona_id, row["wrapped"])
                if key.seal(content).commitment == row["commitment"]:
                    return Saved(
                        PersonaRef(persona_id=persona_id, name=name, version=row["version"]), persona.unused, None
                    )
                await session.execute(
                    "UPDATE control.personas SET version = :version WHERE persona_id = :id",
                    id=persona_id,
                    version=version,
                )
            command = SavePersona(persona_id=persona_id, name=name, version=version, content=key.seal(content))
            await session.execute(
                "INSERT INTO control.persona_versions (persona_id, version, tenant_id, content, saved_by)"
                " VALUES (:id, :version, :tenant_id, :content, :saved_by)",
                id=persona_id,
                version=version,
                tenant_id=tenant_id,
                content=command.content.model_dump(),
                saved_by=actor,
            )
            event_id = await _decided(session, command, PersonaSaved(**command.model_dump()), actor)
            if content.limits is not None:
                await set_within(session, Scope("persona", tenant_id, name), content.limits, actor=actor)
        await self._tell(tenant_id)
        return Saved(PersonaRef(persona_id=persona_id, name=name, version=version), persona.unused, event_id)

    async def restore(
        self, tenant_id: UUID, name: str, version: int, *, actor: str, expected_version: int | None = None
    ) -> Saved:
        """Save again what ``version`` says. Raises NoSuchPersona, and as ``save``."""
        content = await self.definition(tenant_id, name, version)
        return await self.save(tenant_id, name, content, actor=actor, expected_version=expected_version)

    async def remove(self, tenant_id: UUID, name: str, *, actor: str) -> UUID:
        """Nobody asks as it any more, and nobody reads what it said. Returns the event's id. Raises NoSuchPersona."""
        async with self._database.tenant(tenant_id) as session:
            await _one_at_a_time(session)
            row = await _find(session, name)
            if row is None:
                raise NoSuchPersona(name)
            persona_id = row["persona_id"]
            await session.execute("DELETE FROM control.data_keys WHERE conversation_id = :id", id=persona_id)
            await session.execute("DELETE FROM control.persona_versions WHERE persona_id = :id", id=persona_id)
            await session.execute(
                "UPDATE control.personas SET removed_at = now() WHERE persona_id = :id", id=persona_id
            )
            command = RemovePersona(persona_id=persona_id, name=name)
            event_id = await _decided(session, command, PersonaRemoved(**command.model_dump()), actor)
            await set_within(session, Scope("persona", tenant_id, name), Limits(), actor=actor)
        await self._tell(tenant_id)
        return event_id

    async def definition(self, tenant_id: UUID, name: str, version: int | None = None) -> PersonaContent:
        """What this version says, or the newest. Raises NoSuchPersona."""
        async with self._database.tenant(tenant_id) as session:
            row = await _find(session, name)
        if row is None:
            raise NoSuchPersona(name)
        wanted = row["version"] if version is None else version
        return await definition(self._database, self._keys, tenant_id, row["persona_id"], wanted)

    async def last_saved_by(self, tenant_id: UUID, name: str, actor: str) -> PersonaContent | None:
        """The newest definition that ``actor`` saved; None where there is none."""
        async with self._database.tenant(tenant_id) as session:
            row = await session.one(
                "SELECT p.persona_id, max(v.version) AS version FROM control.personas p"
                " JOIN control.persona_versions v ON v.persona_id = p.persona_id"
                " WHERE p.name = :name AND p.removed_at IS NULL AND v.saved_by = :actor GROUP BY p.persona_id",
                name=name,
                actor=actor,
            )
        if row is None:
            return None
        return await definition(self._database, self._keys, tenant_id, row["persona_id"], row["version"])

    async def all(self, tenant_id: UUID) -> list[PersonaRef]:
        """The newest version of each, by name."""
        async with self._database.tenant(tenant_id) as session:
            rows = await session.all(
                "SELECT persona_id, name, version FROM control.personas WHERE removed_at IS NULL ORDER BY name"
            )
        return [PersonaRef.model_validate(row) for row in rows]

    def _checked(self, content: PersonaContent) -> Persona:
        persona = Persona(content)
        persona.check()
        for field, models in (("model", (content.model,)), ("fallbacks", content.fallbacks)):
            for model in models:
                if model is not None and self._settings.pool_of(model) is None:
                    raise Refused("unknown-model", f"body.definition.{field}", f"There is no model {model!r}.")
        return persona

    async def _add(self, session: TenantSession, persona_id: UUID, name: str) -> DataKey:
        """A persona without a version, and its data key, which it has also where a tenant keeps no content."""
        there = await session.one("SELECT count(*) AS count FROM control.personas WHERE removed_at IS NULL")
        if there is not None and there["count"] >= MOST_PERSONAS:
            raise Refused(
                "too-many-personas", "body.name", f"There are {MOST_PERSONAS} personas, the limit. Remove one."
            )
        new = await self._keys.new(session.tenant_id, persona_id, persona_id, None)
        await session.execute(
            "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES (:tenant_id, :id, :wrapped)",
            tenant_id=session.tenant_id,
            id=persona_id,
            wrapped=new.wrapped,
        )
        await session.execute(
            "INSERT INTO control.personas (persona_id, tenant_id, name, version) VALUES (:id, :tenant_id, :name, 1)",
            id=persona_id,
            tenant_id=session.tenant_id,
            name=name,
        )
        return new.key

    async def _tell(self, tenant_id: UUID) -> None:
        await self._signals.send(CHANGED, str(tenant_id))
        await self._signals.send(known_limits.CHANGED, str(tenant_id))


async def _one_at_a_time(session: TenantSession) -> None:
    """Of a tenant's changes, until the end of the transaction."""
    await session.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0))", lock=f"personas/{session.tenant_id}"
    )


async def _find(session: TenantSession, name: str) -> Row | None:
    return await session.one(
        "SELECT p.persona_id, p.version, v.content ->> 'commitment' AS commitment, k.wrapped FROM control.personas p"
        " JOIN control.persona_versions v ON v.persona_id = p.persona_id AND v.version = p.version"
        " JOIN control.data_keys k ON k.conversation_id = p.persona_id AND k.generation_id IS NULL"
        " WHERE p.name = :name AND p.removed_at IS NULL",
        name=name,
    )


async def _check_users(session: TenantSession, content: PersonaContent) -> None:
    wanted = set(content.users or ())
    if not wanted:
        return
    there = await session.all(
        "SELECT user_id FROM control.users WHERE removed_at IS NULL AND user_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(wanted),
    )
    if len(there) < len(wanted):
        raise NoSuchUser


async def _decided(session: TenantSession, command: Payload, event: Payload, actor: str) -> UUID:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=actor)
    decided = asked.caused(event, id=new_id(), source=SOURCE)
    await outbox.add(session, decided)
    return decided.id
