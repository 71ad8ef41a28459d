"""The SQL of personas. Every question is asked in a session that sees one tenant, and names that tenant too."""

from __future__ import annotations

from backplane.ports.database import Row, TenantSession

_COLUMNS = "v.persona_id, v.name, v.version, v.content, v.saved_by, v.saved_at, k.wrapped"
_KEY = """LEFT JOIN control.data_keys k
    ON k.tenant_id = v.tenant_id AND k.conversation_id = v.persona_id AND k.generation_id IS NULL"""


async def newest(session: TenantSession) -> list[Row]:
    """The newest version of each, by name. ``wrapped`` is its data key, None where it is gone."""
    return await session.all(
        f"""SELECT {_COLUMNS}
            FROM (SELECT DISTINCT ON (name) * FROM read_models.persona_versions WHERE tenant_id = :tenant
                  ORDER BY name, version DESC) v
            {_KEY} ORDER BY v.name""",  # noqa: S608 - made of this module's own text
        tenant=session.tenant_id,
    )


async def version(session: TenantSession, name: str, number: int | None) -> Row | None:
    """This version, or the newest one."""
    return await session.one(
        f"""SELECT {_COLUMNS}
            FROM (SELECT * FROM read_models.persona_versions
                  WHERE tenant_id = :tenant AND name = :name
                    AND version = coalesce(CAST(:version AS integer), version)
                  ORDER BY version DESC LIMIT 1) v
            {_KEY}""",  # noqa: S608 - made of this module's own text
        tenant=session.tenant_id,
        name=name,
        version=number,
    )


async def versions(session: TenantSession, name: str) -> list[Row]:
    """The newest first, without what they say."""
    return await session.all(
        "SELECT persona_id, name, version, saved_by, saved_at FROM read_models.persona_versions"
        " WHERE tenant_id = :tenant AND name = :name ORDER BY version DESC",
        tenant=session.tenant_id,
        name=name,
    )
