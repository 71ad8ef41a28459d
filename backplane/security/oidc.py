"""OpenID Connect: who a provider says that somebody is. Authorization code with PKCE, state and nonce (RFC 7636,
OpenID Connect Core 1.0, section 3.1)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from backplane.settings import OidcSettings

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a key of the provider's alone: neither `none`, nor one that our client secret could make."""

_CLOCKS_APART_S = 60
_TIMEOUT_S = 10.0


class OidcFailed(Exception):
    """The provider does not answer, or what it says cannot be believed. The message holds no token and no secret."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is remembered of somebody who was sent to the provider, until they come back."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def make(cls) -> Challenge:
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


@dataclass(frozen=True, slots=True)
class Identity:
    issuer: str
    subject: str
    email: str | None
    """Only one that the provider has verified."""
    name: str | None


class OidcProvider:
    """Asks for the provider's metadata and keys each time: signing in is rare, and keys change."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings

    async def url(self, challenge: Challenge, redirect_uri: str) -> str:
        """Where to send somebody who wants to sign in. Raises OidcFailed."""
        async with self._client(redirect_uri) as client:
            metadata = await self._metadata(client)
            url, _ = client.create_authorization_url(
                _named(metadata, "authorization_endpoint"),
                state=challenge.state,
                nonce=challenge.nonce,
                code_verifier=challenge.verifier,
            )
        return str(url)

    async def identity(self, code: str, challenge: Challenge, redirect_uri: str) -> Identity:
        """Who came back with ``code``. Raises OidcFailed."""
        # These take longer to import than all else together, and only who uses OpenID Connect needs them.
        import httpx2
        from authlib.integrations.base_client import OAuthError

        async with self._client(redirect_uri) as client:
            metadata = await self._metadata(client)
            try:
                token = await client.fetch_token(
                    _named(metadata, "token_endpoint"), code=code, code_verifier=challenge.verifier
                )
            except OAuthError as error:
                raise OidcFailed(f"the provider refused the code: {_word(error.error)}") from None
            except (httpx2.HTTPError, ValueError) as error:
                raise OidcFailed(f"the provider's token endpoint failed: {type(error).__name__}") from None
            keys = await self._json(client, _named(metadata, "jwks_uri"))
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise OidcFailed("the provider sent no id_token")
        return self._believed(id_token, keys, challenge.nonce)

    def _believed(self, id_token: str, keys: Any, nonce: str) -> Identity:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        wanted = {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
        }
        try:
            signed = jwt.decode(id_token, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)
            params = {"nonce": nonce, "client_id": self.settings.client_id}
            claims = CodeIDToken(signed.claims, signed.header, wanted, params)
            claims.validate(leeway=_CLOCKS_APART_S)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise OidcFailed(
                f"its id_token is not to be believed: {_word(getattr(error, 'description', error))}"
            ) from None
        email, name, subject = claims.get("email"), claims.get("name"), claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise OidcFailed("the provider's id_token names no subject")
        verified = isinstance(email, str) and claims.get("email_verified") is True
        return Identity(
            self.settings.issuer, subject, email if verified else None, name if isinstance(name, str) else None
        )

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        return AsyncOAuth2Client(
            self.settings.client_id,
            self.settings.client_secret.get_secret_value(),
            scope="openid email profile",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
        )

    async def _metadata(self, client: Any) -> dict[str, Any]:
        found = await self._json(client, self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(found, dict) or found.get("issuer") != self.settings.issuer:
            raise OidcFailed("the provider's metadata is of another issuer than the settings name")
        return found

    async def _json(self, client: Any, url: str) -> Any:
        import httpx2

        try:
            answer = await client.request("GET", url, withhold_token=True)
            answer.raise_for_status()
            return answer.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise OidcFailed(f"the provider does not answer: {type(error).__name__}") from None


def _named(metadata: dict[str, Any], endpoint: str) -> str:
    url = metadata.get(endpoint)
    if not isinstance(url, str):
        raise OidcFailed(f"the provider's metadata names no {endpoint}")
    return url


def _word(said: object) -> str:
    """What somebody else said, short and on one line."""
    return " ".join(str(said).split())[:120]
