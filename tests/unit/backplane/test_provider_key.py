from __future__ import annotations

import json
from typing import Any

import pytest

from backplane.security.provider_key import MOST_CHARACTERS, ProviderKey, checked

ACCOUNT = {
    "type": "service_account",
    "private_key": "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
    "client_email": "parley@example.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_its_id_is_stable_and_tells_nothing() -> None:
    key = ProviderKey.of("sk-secret")
    assert key.id == ProviderKey.of("sk-secret").id != ProviderKey.of("sk-other").id
    assert "secret" not in repr(key)


@pytest.mark.parametrize("backend", ["openai", "azure", "anthropic", "bedrock", "vertex"])
def test_one_word_is_a_key(backend: str) -> None:
    # What the settings would look up elsewhere is a key like any other here.
    for secret in ("sk-proj-a_b", "AKIA:secret:token", "env:OPENAI_API_KEY", "file:/etc/passwd", "x" * MOST_CHARACTERS):
        assert checked(secret, backend) == secret


@pytest.mark.parametrize("backend", ["openai", "anthropic", "bedrock", "vertex"])
@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "empty"),
        ("canary" + "x" * MOST_CHARACTERS, f"the limit is {MOST_CHARACTERS}"),
        (" canary", "blanks"),
        ("canary two", "blanks"),
        ("canary\n", "line breaks"),
        ("canary\r\nX-Evil: 1", "line breaks"),
        ("canary\0", "visible"),
        ("canaryé", "ASCII"),
        ("canary\ud800", "ASCII"),
        ("default", "credentials of the worker's machine"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(secret: str, says: str, backend: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        checked(secret, backend)
    assert "canary" not in str(caught.value)


def test_a_service_account_is_a_key_for_vertex_only() -> None:
    secret = json.dumps(ACCOUNT, indent=2)
    assert json.loads(checked(secret, "vertex")) == ACCOUNT
    with pytest.raises(ValueError, match="blanks"):
        checked(secret, "openai")


@pytest.mark.parametrize(
    "changed",
    [
        {"token_uri": "http://169.254.169.254/token"},
        {"token_uri": "https://oauth2.googleapis.com/token/../evil"},
        {"token_uri": None},
        {"type": "external_account", "credential_source": {"file": "/etc/passwd"}},
        {"type": ["service_account"]},
        {"universe_domain": "evil.example"},
    ],
)
def test_a_service_account_that_leads_elsewhere_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"token_uri|universe_domain") as caught:
        checked(json.dumps(ACCOUNT | changed), "vertex")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("secret", ["{", '{"type": ', "{" * 5000])
def test_what_only_begins_like_one_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        checked(secret, "vertex")
