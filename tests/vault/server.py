"""The transit secrets engine as HashiCorp Vault and OpenBao speak it, over real HTTP, with real AES-GCM, and faults."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backplane.adapters.vault import VaultAddress, VaultTransit

TOKEN, MOUNT, KEY = "hvs.only-in-tests", "team/transit", "parley"


class Refused(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        self.status = status
        self.errors = errors


@dataclass
class Vault:
    url: str = ""
    token: str = TOKEN
    keys: dict[str, AESGCM] = field(default_factory=lambda: {KEY: AESGCM(os.urandom(32))})
    fault: int | bytes | None = None
    """What comes instead of an answer: a status with an error, or these bytes; of none of them: nothing, ever."""
    asked: list[str] = field(default_factory=list)
    """Paths of all requests."""

    def address(self, **other: Any) -> VaultAddress:
        return VaultAddress(**{"url": self.url, "mount": MOUNT, "key": KEY, "token": TOKEN} | other)

    def transit(self, **other: Any) -> VaultTransit:
        """A client of it that remembers nothing yet."""
        return VaultTransit(self.address(), **other)

    def answer(self, path: str, token: str | None, body: dict[str, str]) -> dict[str, str]:
        if token != self.token:
            raise Refused(403, "permission denied")
        *mount, operation, key = path.removeprefix("/v1/").split("/")
        if "/".join(mount) != MOUNT:
            raise Refused(404, f"no handler for route {path!r}")
        if key not in self.keys:
            raise Refused(400, "encryption key not found")
        cipher, place = self.keys[key], b64decode(body["associated_data"], validate=True)
        if operation == "encrypt":
            nonce = os.urandom(12)
            sealed = cipher.encrypt(nonce, b64decode(body["plaintext"], validate=True), place)
            return {"ciphertext": f"vault:v1:{b64encode(nonce + sealed).decode()}"}
        try:
            raw = b64decode(body["ciphertext"].removeprefix("vault:v1:"), validate=True)
            return {"plaintext": b64encode(cipher.decrypt(raw[:12], raw[12:], place)).decode()}
        except (InvalidTag, ValueError):
            raise Refused(400, "invalid ciphertext: unable to decrypt") from None

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            path = first.split()[1]
            self.asked.append(path)
            match self.fault:
                case bytes():
                    writer.write(self.fault)
                    if not self.fault:
                        await reader.read()
                case int():
                    writer.write(_http(self.fault, {"errors": ["by the test"]}))
                case None:
                    try:
                        said = {"data": self.answer(path, headers.get("x-vault-token"), body)}
                        writer.write(_http(200, said))
                    except Refused as refused:
                        writer.write(_http(refused.status, {"errors": list(refused.errors)}))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _http(status: int, said: object) -> bytes:
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def vault() -> AsyncIterator[Vault]:
    """One that listens on a free port of this machine while the context lasts."""
    made = Vault()
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taking = asyncio.create_task(made.take(reader, writer))
        connections.add(taking)
        taking.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for taking in connections:
            taking.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
