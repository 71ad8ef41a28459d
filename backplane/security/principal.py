"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from event_schemas.control_plane import KeyRole
from event_schemas.share import Share


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as its API key proved it. Everything it may see belongs to ``tenant_id``."""

    tenant_id: UUID
    key_id: UUID
    user_id: UUID | None
    role: KeyRole
    share: Share = field(default_factory=Share)
    """Its tenant's."""

    @property
    def actor(self) -> str:
        """As it stands in an envelope: the user where the key is a person's, else the key."""
        return f"key:{self.key_id}" if self.user_id is None else f"user:{self.user_id}"
