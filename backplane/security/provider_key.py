"""Provider keys: what a provider knows its customer by."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from uuid import UUID

CHANGED = "provider_keys:changed"
"""Signals channel on which a pool is sent in which a key was added or retired."""

MOST_CHARACTERS = 8192

_ONE_WORD = re.compile(r"[!-~]+")
_MACHINES_OWN = "default"
_GOOGLES_TOKENS = "https://oauth2.googleapis.com/token"
_GOOGLES_UNIVERSE = "googleapis.com"


@dataclass(frozen=True, slots=True)
class ProviderKey:
    id: str
    """Stable and public: a hash that tells nothing of the key."""
    secret: str = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> ProviderKey:
        return cls(hashlib.blake2b(secret.encode(), digest_size=6, person=b"parley.key").hexdigest(), secret)


def place(tenant_id: UUID, key_id: UUID, pool: str) -> str:
    """What a stored key belongs to, as it is sealed with it."""
    return f"provider_key/{tenant_id}/{key_id}/{pool}"


def checked(secret: str, backend: str) -> str:
    """``secret`` as it may be added at run time to a pool of ``backend``: a tenant's word is no operator's.

    Raises ValueError, which says what is wrong and nothing of the secret.
    """
    if not secret:
        raise ValueError("must not be empty")
    if len(secret) > MOST_CHARACTERS:
        raise ValueError(f"has {len(secret)} characters, the limit is {MOST_CHARACTERS}")
    if backend == "vertex" and secret.startswith("{"):
        return _service_account(secret)
    if not _ONE_WORD.fullmatch(secret):
        raise ValueError("must be visible ASCII characters without blanks or line breaks")
    if secret == _MACHINES_OWN:
        raise ValueError("`default` stands for the credentials of the worker's machine; only the settings may name it")
    return secret


def _service_account(secret: str) -> str:
    # The worker asks `token_uri` for a token: it must not be led to wherever somebody likes.
    try:
        account = json.loads(secret)
    except (ValueError, RecursionError):
        raise ValueError("begins with a brace and is not JSON; give the JSON file of a service account's key") from None
    if account.get("type") != "service_account" or account.get("token_uri") != _GOOGLES_TOKENS:
        raise ValueError(f"must be a service account's key, with the `token_uri` {_GOOGLES_TOKENS}")
    if account.get("universe_domain", _GOOGLES_UNIVERSE) != _GOOGLES_UNIVERSE:
        raise ValueError(f"must be of the `universe_domain` {_GOOGLES_UNIVERSE}")
    return json.dumps(account, separators=(",", ":"))
