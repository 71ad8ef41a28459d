"""Who may do what: one table. Routes ask it by a permission's name, never by a role's."""

from __future__ import annotations

from typing import Literal

from event_schemas.control_plane import KeyRole

Permission = Literal[
    "session.own",  # see who one is, sign out, end one's other sessions
    "conversations.use",  # ask, read and change what is one's own
    "conversations.all",  # the same with everybody's in the tenant
    "embeddings.make",
    "usage.read",
    "events.read",
    "provider_keys.manage",
    "webhooks.manage",
    "chat_tools.manage",  # who asks there asks as who added it, so it takes who may ask
    "collections.read",  # list and search them; a prompt may name them, too
    "collections.manage",
    "limits.manage",
    "personas.manage",  # see all that they say, save, restore and remove them
    "sources.manage",  # say what prompts may have fetched, and which sites there are
    "content.manage",  # erase what a user wrote; say for how long content is kept
    "keys.own",  # issue, rotate and revoke keys of one's own
    "keys.all",  # the same with everybody's in the tenant
    "users.manage",
    "tenants.manage",
    "dead_letters.manage",  # see, replay and discard what could not be handled, of every tenant
]

_EVERYBODY: frozenset[Permission] = frozenset({"session.own"})
_MEMBER: frozenset[Permission] = _EVERYBODY | {
    "conversations.use",
    "embeddings.make",
    "usage.read",
    "keys.own",
    "collections.read",
}
_AUDITOR: frozenset[Permission] = _EVERYBODY | {"events.read"}
_MANAGES: frozenset[Permission] = frozenset(
    {
        "provider_keys.manage",
        "webhooks.manage",
        "limits.manage",
        "sources.manage",
        "keys.own",
        "keys.all",
        "users.manage",
    }
)
_ADMIN: frozenset[Permission] = (
    _MEMBER
    | _AUDITOR
    | _MANAGES
    | {"conversations.all", "content.manage", "personas.manage", "collections.manage", "chat_tools.manage"}
)

PERMISSIONS: dict[KeyRole, frozenset[Permission]] = {
    "owner": _ADMIN,
    "admin": _ADMIN,
    "member": _MEMBER,
    "auditor": _AUDITOR,
    "platform": _AUDITOR | _MANAGES | {"tenants.manage", "dead_letters.manage"},
}

GRANTS: dict[KeyRole, frozenset[KeyRole]] = {
    "owner": frozenset({"owner", "admin", "member", "auditor"}),
    "admin": frozenset({"admin", "member", "auditor"}),
    "member": frozenset({"member"}),
    "auditor": frozenset(),
    "platform": frozenset({"platform"}),
}
"""Roles that one may give to keys and users, take away from them, and see the new secrets of."""


def lesser(of_key: KeyRole, of_user: KeyRole) -> KeyRole | None:
    """What a user's key may do: what both roles may. None where that is nothing, as with member and auditor."""
    if of_key == of_user or of_key in GRANTS[of_user]:
        return of_key
    return of_user if of_user in GRANTS[of_key] else None
