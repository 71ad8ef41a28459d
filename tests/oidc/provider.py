"""A small OpenID Connect provider: signs everybody in who comes, or does one thing wrong that it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "parley", "only-in-tests-and-long-enough-for-hmac-sha256"


@dataclass
class Provider:
    """``claims`` and ``forged`` are its faults: what its tokens say wrongly, and how they are signed wrongly."""

    url: str
    subject: str = "subject-1"
    email: str | None = "ada@example.com"
    email_verified: bool = True
    name: str | None = "Ada"
    claims: dict[str, Any] = field(default_factory=dict)
    forged: str | None = None
    is_silent: bool = False
    issuer: str | None = None
    key: RSAKey | ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one"}))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": self.subject,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": nonce,
            "email": self.email,
            "email_verified": self.email_verified,
            "name": self.name,
        } | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "ES256", "kid": "one"}
        if self.forged == "none":
            parts = ({"alg": "none", "typ": "JWT"}, claims)
            return ".".join(_b64(json.dumps(part).encode()) for part in parts) + "."
        if self.forged == "hs256":
            return jwt.encode({"alg": "HS256", "kid": "one"}, claims, OctKey.import_key(CLIENT_SECRET))
        if self.forged == "other key":
            return jwt.encode(header, claims, ECKey.generate_key("P-256", {"kid": "one"}))
        if self.forged == "unknown key":
            return jwt.encode({"alg": "ES256", "kid": "two"}, claims, ECKey.generate_key("P-256", {"kid": "two"}))
        signed = jwt.encode(header, claims, self.key)
        if self.forged == "changed":
            head, _, signature = signed.split(".")
            return f"{head}.{_b64(json.dumps(claims | {'sub': 'somebody else'}).encode())}.{signature}"
        return signed


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def application(provider: Provider) -> FastAPI:
    app = FastAPI()

    @app.get("/.well-known/openid-configuration")
    async def metadata() -> Response:
        if provider.is_silent:
            return Response("down", 503)
        endpoints = {
            "authorization_endpoint": "authorize",
            "token_endpoint": "token",
            "jwks_uri": "keys",
        }
        named = {name: f"{provider.url}/{path}" for name, path in endpoints.items()}
        return JSONResponse({"issuer": provider.issuer or provider.url, **named})

    @app.get("/authorize")
    async def authorize(request: Request) -> Response:
        asked = dict(request.query_params)
        assert (asked["client_id"], asked["response_type"]) == (CLIENT_ID, "code")
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        provider.codes[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}", 302)

    @app.post("/token")
    async def token(request: Request) -> Response:
        sent = dict(parse_qsl((await request.body()).decode()))
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {basic}":
            return JSONResponse({"error": "invalid_client"}, 401)
        asked = provider.codes.pop(sent["code"], None)
        challenge = _b64(hashlib.sha256(sent["code_verifier"].encode()).digest())
        if (
            asked is None
            or sent["grant_type"] != "authorization_code"
            or (asked["redirect_uri"], asked["code_challenge"]) != (sent["redirect_uri"], challenge)
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        told = {"access_token": "at", "token_type": "Bearer", "expires_in": 60}
        if provider.forged != "no token":
            told["id_token"] = provider.token(asked["nonce"])
        return JSONResponse(told)

    @app.get("/keys")
    async def keys() -> Response:
        return JSONResponse(KeySet([provider.key]).as_dict(private=False))

    return app


@asynccontextmanager
async def served(app: FastAPI, listening: socket.socket) -> AsyncIterator[None]:
    """``app`` at real HTTP."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listening.close()


@asynccontextmanager
async def running() -> AsyncIterator[Provider]:
    """On a free port of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    provider = Provider(f"http://127.0.0.1:{listening.getsockname()[1]}")
    async with served(application(provider), listening):
        yield provider
