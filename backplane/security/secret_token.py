"""Secrets that one is let in with and that are not API keys: of browser sessions and of invitations."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Literal

Purpose = Literal["session", "invitation"]

_FORM = re.compile(r"[0-9a-f]{64}")


def make() -> str:
    """256 random bits, in hexadecimal."""
    return secrets.token_hex(32)


def is_one(given: str) -> bool:
    """Whether it has a token's form."""
    return bool(_FORM.fullmatch(given))


def hashed(token: str, purpose: Purpose, pepper: str) -> bytes | None:
    """As it is stored: HMAC-SHA-256 under the installation's pepper. None where it does not have a token's form."""
    if not is_one(token):
        return None
    return hmac.digest(pepper.encode(), f"{purpose}/{token}".encode(), hashlib.sha256)


def csrf_of(session_token: str) -> str:
    """What a page that may use the session, and no page of another origin, can send beside its cookie.

    It follows from the token by HMAC, so it is stored nowhere and tells nothing of it.
    """
    return hmac.digest(session_token.encode(), b"parley csrf", hashlib.sha256).hex()
