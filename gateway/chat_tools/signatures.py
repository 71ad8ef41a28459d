"""Whether a request is a chat tool's own, and a new one. All comparisons take the same time, whatever differs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WINDOW_S = 300.0
"""A request that was signed longer ago, or is to be signed so much later, is none of now."""


class NotSigned(Exception):
    """It is not the tool's, or it is an old one. The message says nothing of what was expected."""


def slack(signing_secret: str, timestamp: str, signature: str, body: bytes, now: float) -> None:
    """https://docs.slack.dev/authentication/verifying-requests-from-slack. ``now`` in seconds. Raises NotSigned."""
    _recent(timestamp, now)
    mac = hmac.digest(signing_secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256)
    if not hmac.compare_digest(f"v0={mac.hex()}".encode(), signature.encode()):
        raise NotSigned("the signature is another's")


def discord(public_key: str, timestamp: str, signature: str, body: bytes, now: float) -> None:
    """https://docs.discord.com/developers/interactions/overview#validating-security-request-headers. ``now`` in
    seconds. Raises NotSigned."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(
            bytes.fromhex(signature), timestamp.encode() + body
        )
    except (InvalidSignature, ValueError):
        raise NotSigned("the signature is another's") from None
    _recent(timestamp, now)


def teams(security_token: str, authorization: str, body: bytes) -> None:
    """https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-outgoing-webhook. When it
    was sent stands in the body: see ``sent_recently``. Raises NotSigned."""
    try:
        key = base64.b64decode(security_token, validate=True)
    except binascii.Error:
        raise NotSigned("its security token is not base64") from None
    expected = b"HMAC " + base64.b64encode(hmac.digest(key, body, hashlib.sha256))
    if not hmac.compare_digest(expected, authorization.encode()):
        raise NotSigned("the signature is another's")


def sent_recently(timestamp: str, now: float) -> None:
    """``timestamp`` as ISO 8601 with its zone. Raises NotSigned."""
    try:
        sent = datetime.fromisoformat(timestamp)
    except ValueError:
        raise NotSigned("it does not say when it was sent") from None
    if sent.tzinfo is None or abs(now - sent.timestamp()) > WINDOW_S:
        raise NotSigned("it was not sent just now")


def _recent(timestamp: str, now: float) -> None:
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
        raise NotSigned("it does not say when it was sent")
    if abs(now - int(timestamp)) > WINDOW_S:
        raise NotSigned("it was not sent just now")
