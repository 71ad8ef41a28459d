"""New identifiers."""

from __future__ import annotations

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): unique, and ordered by the millisecond it was made in."""
    return uuid7()
