"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from backplane.security.permissions import PERMISSIONS, Permission
from event_schemas.control_plane import KeyRole
from event_schemas.share import Share


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as its API key or its session proved it. Everything it may see belongs to ``tenant_id``."""

    tenant_id: UUID
    key_id: UUID
    """The API key, or that which its session was begun with; a session's own id where a person signed in."""
    user_id: UUID | None
    role: KeyRole
    share: Share = field(default_factory=Share)
    """Its tenant's."""
    models: frozenset[str] | None = None
    """Those that it may ask; None: all."""
    personas: frozenset[str] | None = None
    """Those that it may ask as; None: all."""
    session_id: UUID | None = None
    """None where it came with an API key."""
    expires_at: datetime | None = None
    """When its API key ends; None: never, or a person signed in."""

    def may(self, permission: Permission) -> bool:
        return permission in PERMISSIONS[self.role]

    @property
    def actor(self) -> str:
        """As it stands in an envelope: the user where the key is a person's, else the key."""
        return f"key:{self.key_id}" if self.user_id is None else f"user:{self.user_id}"
