"""Data keys for tests, real ones, and content sealed under them."""

from __future__ import annotations

import os
from typing import Any, TypeVar
from uuid import UUID

from backplane.security.content import DataKey, DataKeys, opened_row
from backplane.security.sealing import MasterKey
from event_schemas.payload import Content, Plain

C = TypeVar("C", bound=Content)

MASTER_KEY = MasterKey("5a" * 32)
DATA_KEYS = DataKeys(MASTER_KEY)


def data_key(belongs_to: UUID) -> DataKey:
    """A key that is stored nowhere."""
    return DataKey(os.urandom(32), str(belongs_to))


def plain(content: Content) -> Plain:
    """``content`` as releases wrote it that did not encrypt."""
    return Plain(plain=content.model_dump(mode="json"))


def read(written: Any, key: DataKey | None, kind: type[C]) -> C:
    """What a row of a read model holds. Raises ContentErased, CannotRead."""
    return kind.model_validate(opened_row(written, key))
