"""Whether a request is a chat tool's own, and a new one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.chat_tools import signatures
from gateway.chat_tools.signatures import NotSigned

# The example of Slack's own documentation.
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_AT = "1531420618"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_SIGNATURE = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"


def test_slacks_own_example() -> None:
    signatures.slack(SLACK_SECRET, SLACK_AT, SLACK_SIGNATURE, SLACK_BODY, float(SLACK_AT) + 299)


@pytest.mark.parametrize(
    ("secret", "at", "signature", "body", "later_s"),
    [
        ("another", SLACK_AT, SLACK_SIGNATURE, SLACK_BODY, 0.0),
        (SLACK_SECRET, SLACK_AT, SLACK_SIGNATURE, SLACK_BODY + b" ", 0.0),
        (SLACK_SECRET, SLACK_AT, SLACK_SIGNATURE, SLACK_BODY, 301.0),
        (SLACK_SECRET, SLACK_AT, SLACK_SIGNATURE, SLACK_BODY, -301.0),
        (SLACK_SECRET, "1531420619", SLACK_SIGNATURE, SLACK_BODY, 0.0),
        (SLACK_SECRET, SLACK_AT, SLACK_SIGNATURE.upper(), SLACK_BODY, 0.0),
        (SLACK_SECRET, SLACK_AT, "v0=é", SLACK_BODY, 0.0),
        (SLACK_SECRET, SLACK_AT, "", SLACK_BODY, 0.0),
        (SLACK_SECRET, "", SLACK_SIGNATURE, SLACK_BODY, 0.0),
        (SLACK_SECRET, "nan", SLACK_SIGNATURE, SLACK_BODY, 0.0),
        (SLACK_SECRET, "²", SLACK_SIGNATURE, SLACK_BODY, 0.0),
        (SLACK_SECRET, "1" * 400, SLACK_SIGNATURE, SLACK_BODY, 0.0),
    ],
)
def test_what_slack_did_not_sign_just_now(secret: str, at: str, signature: str, body: bytes, later_s: float) -> None:
    with pytest.raises(NotSigned):
        signatures.slack(secret, at, signature, body, float(SLACK_AT) + later_s)


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
DISCORD_AT = "1767225600"
PING = b'{"type":1}'
DISCORD_SIGNATURE = KEY.sign(DISCORD_AT.encode() + PING).hex()


def test_what_discord_signed() -> None:
    signatures.discord(PUBLIC, DISCORD_AT, DISCORD_SIGNATURE, PING, float(DISCORD_AT))


@pytest.mark.parametrize(
    ("at", "signature", "body", "later_s"),
    [
        (DISCORD_AT, DISCORD_SIGNATURE, b'{"type":2}', 0.0),
        ("1767225601", DISCORD_SIGNATURE, PING, 0.0),
        (DISCORD_AT, DISCORD_SIGNATURE, PING, 301.0),
        (DISCORD_AT, DISCORD_SIGNATURE[:-2], PING, 0.0),
        (DISCORD_AT, "no hexadecimal", PING, 0.0),
        (DISCORD_AT, "", PING, 0.0),
        (DISCORD_AT, Ed25519PrivateKey.generate().sign(DISCORD_AT.encode() + PING).hex(), PING, 0.0),
        ("", KEY.sign(PING).hex(), PING, 0.0),
    ],
)
def test_what_discord_did_not_sign_just_now(at: str, signature: str, body: bytes, later_s: float) -> None:
    with pytest.raises(NotSigned):
        signatures.discord(PUBLIC, at, signature, body, float(DISCORD_AT) + later_s)


TOKEN = base64.b64encode(bytes(range(40))).decode()
SAID = '{"text":"é"}'.encode()


def teams_header(body: bytes) -> str:
    mac = hmac.new(base64.b64decode(TOKEN), body, hashlib.sha256)
    return f"HMAC {base64.b64encode(mac.digest()).decode()}"


def test_what_teams_signed() -> None:
    signatures.teams(TOKEN, teams_header(SAID), SAID)


@pytest.mark.parametrize(
    "header", ["", "HMAC ", teams_header(b"another"), teams_header(SAID).removeprefix("HMAC "), "HMAC é"]
)
def test_what_teams_did_not_sign(header: str) -> None:
    with pytest.raises(NotSigned):
        signatures.teams(TOKEN, header, SAID)


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("at", ["2026-03-01T12:04:59.5Z", "2026-03-01T11:55:01.0000000Z", "2026-03-01T13:00:00+01:00"])
def test_what_was_sent_just_now(at: str) -> None:
    signatures.sent_recently(at, NOW)


@pytest.mark.parametrize("at", ["2026-03-01T12:05:01Z", "2026-03-01T11:54:59Z", "2026-03-01T12:00:00", "", "yesterday"])
def test_what_was_not_sent_just_now(at: str) -> None:
    with pytest.raises(NotSigned):
        signatures.sent_recently(at, NOW)
