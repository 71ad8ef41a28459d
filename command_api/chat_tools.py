"""Chat tools of tenants: apps in Slack, Discord or Microsoft Teams, and what proves that a request is theirs.

Who asks there asks as who added the tool. Each change is a command with an event, decided in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.security.sealing import MasterKey
from backplane.settings import Settings
from command_api import outbox
from command_api.admission import Refused, admit
from command_api.prompt import PromptBody
from event_schemas.chat_tools import (
    AddChatTool,
    ChatToolAdded,
    ChatToolRemoved,
    ChatToolSecretsSet,
    RemoveChatTool,
    SetChatToolSecrets,
)
from event_schemas.envelope import Envelope
from event_schemas.payload import Payload

SOURCE = "/parley/command_api"

ChatToolKind = Literal["slack", "discord", "teams"]

MOST_CHAT_TOOLS = 50
"""Of one tenant."""


class NoSuchChatTool(LookupError):
    """Not there, or somebody else's."""


@dataclass(frozen=True, slots=True)
class Added:
    id: UUID
    kind: ChatToolKind
    name: str
    persona: str | None
    model: str | None
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """A tool that a request names, which has yet to prove that it is the tool's."""

    id: UUID
    tenant_id: UUID
    secrets: Mapping[str, str] = field(repr=False)


class ChatTools:
    """``leases`` is the database as the role that may look a tool up before its tenant is known; ``database`` as the
    API's own."""

    def __init__(self, database: Database, leases: Database, master_key: MasterKey, settings: Settings) -> None:
        self._database = database
        self._leases = leases
        self._master_key = master_key
        self._settings = settings

    async def add(
        self,
        principal: Principal,
        kind: ChatToolKind,
        name: str,
        persona: str | None,
        model: str | None,
        secrets: Mapping[str, str],
    ) -> Added:
        """From now on its users may ask. Without ``secrets`` it is answered nothing until they are set.

        Raises Refused, DatabaseUnavailable.
        """
        if model is not None or persona is None:
            admit(PromptBody.model_validate({"input": "-", "model": model}), self._settings, principal.models)
        owner = principal.tenant_id
        command = AddChatTool(
            chat_tool_id=new_id(),
            kind=kind,
            name=name,
            persona=persona,
            model=model,
            user_id=principal.user_id,
            key_id=principal.key_id,
        )
        async with self._database.tenant(owner) as session:
            await _has_room(session)
            if persona is not None:
                await _has_persona(session, persona)
            row = await session.one(
                """INSERT INTO control.chat_tools
                     (chat_tool_id, tenant_id, kind, name, persona, model, key_id, user_id, sealed)
                   VALUES (:chat_tool_id, :tenant_id, :kind, :name, :persona, :model, :key_id, :user_id, :sealed)
                   RETURNING added_at""",
                tenant_id=owner,
                sealed=self._sealed(secrets, owner, command.chat_tool_id),
                **command.model_dump(),
            )
            assert row is not None
            await _decided(session, principal, command, ChatToolAdded(**command.model_dump()))
        return Added(command.chat_tool_id, kind, name, persona, model, row["added_at"])

    async def all(self, owner: UUID) -> list[Row]:
        """Every tool that was not removed, the newest first. Raises DatabaseUnavailable."""
        async with self._database.tenant(owner) as session:
            return await session.all(
                """SELECT chat_tool_id AS id, kind, name, persona, model, added_at, last_failure, last_failed_at
                   FROM control.chat_tools ORDER BY chat_tool_id DESC"""
            )

    async def set_secrets(
        self, principal: Principal, chat_tool_id: UUID, kind: ChatToolKind, secrets: Mapping[str, str]
    ) -> None:
        """The former ones prove nothing any more. Raises NoSuchChatTool, Refused, DatabaseUnavailable."""
        async with self._database.tenant(principal.tenant_id) as session:
            row = await session.one("SELECT kind FROM control.chat_tools WHERE chat_tool_id = :id", id=chat_tool_id)
            if row is None:
                raise NoSuchChatTool(f"there is no chat tool {chat_tool_id}")
            if row["kind"] != kind:
                raise Refused("other-kind", "body.kind", f"This chat tool is of the kind {row['kind']!r}.")
            await session.execute(
                "UPDATE control.chat_tools SET sealed = :sealed WHERE chat_tool_id = :id",
                sealed=self._sealed(secrets, principal.tenant_id, chat_tool_id),
                id=chat_tool_id,
            )
            ids = {"chat_tool_id": chat_tool_id}
            await _decided(session, principal, SetChatToolSecrets(**ids), ChatToolSecretsSet(**ids))

    async def remove(self, principal: Principal, chat_tool_id: UUID) -> None:
        """Nobody asks through it any more, and its secrets are gone. Raises NoSuchChatTool, DatabaseUnavailable."""
        async with self._database.tenant(principal.tenant_id) as session:
            if not await session.execute("DELETE FROM control.chat_tools WHERE chat_tool_id = :id", id=chat_tool_id):
                raise NoSuchChatTool(f"there is no chat tool {chat_tool_id}")
            ids = {"chat_tool_id": chat_tool_id}
            await _decided(session, principal, RemoveChatTool(**ids), ChatToolRemoved(**ids))

    async def named(self, chat_tool_id: UUID, kind: ChatToolKind) -> Known:
        """Whose tool this is. Raises NoSuchChatTool, also where its secrets are not known; CannotOpen,
        DatabaseUnavailable."""
        rows = await self._leases.at_once("SELECT * FROM control.chat_tool(:id)", id=chat_tool_id)
        if not rows or rows[0]["kind"] != kind or rows[0]["sealed"] is None:
            raise NoSuchChatTool(f"there is no chat tool {chat_tool_id}")
        tenant_id = rows[0]["tenant_id"]
        return Known(chat_tool_id, tenant_id, opened(self._master_key, rows[0]["sealed"], tenant_id, chat_tool_id))

    def _sealed(self, secrets: Mapping[str, str], owner: UUID, chat_tool_id: UUID) -> bytes | None:
        if not secrets:
            return None
        return self._master_key.seal(orjson.dumps(dict(secrets)).decode(), _place(owner, chat_tool_id))


def opened(master_key: MasterKey, sealed: bytes, owner: UUID, chat_tool_id: UUID) -> dict[str, str]:
    """A tool's secrets by their names. Raises CannotOpen."""
    found: dict[str, str] = orjson.loads(master_key.open(sealed, _place(owner, chat_tool_id)))
    return found


def _place(owner: UUID, chat_tool_id: UUID) -> str:
    return f"chat-tool/{owner}/{chat_tool_id}"


async def _has_room(session: TenantSession) -> None:
    # One at a time for each owner, until the end of the transaction.
    await session.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0))", lock=f"chat tools/{session.tenant_id}"
    )
    found = await session.one("SELECT count(*) AS number FROM control.chat_tools")
    if found is not None and found["number"] >= MOST_CHAT_TOOLS:
        raise Refused("too-many-chat-tools", "body", f"There are {found['number']} chat tools, the limit. Remove one.")


async def _has_persona(session: TenantSession, persona: str) -> None:
    name, _, version = persona.partition("@")
    found = await session.one(
        "SELECT FROM control.personas WHERE removed_at IS NULL AND name = :name AND version >= :version",
        name=name,
        version=int(version or 1),
    )
    if found is None:
        raise Refused("unknown-persona", "body.persona", f"There is no persona {persona!r}.")


async def _decided(session: TenantSession, principal: Principal, command: Payload, event: Payload) -> None:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=principal.actor)
    await outbox.add(session, asked.caused(event, id=new_id(), source=SOURCE))
