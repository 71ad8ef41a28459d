"""``KeyWrapping`` by the transit secrets engine, over its HTTP API. The master key never leaves that server.

What a data key belongs to is its ``associated_data``, so that one that was moved to another row does not open.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable

import httpx

from backplane.adapters.vault.address import VaultAddress
from backplane.ports.key_wrapping import CannotUnwrap, WrappingRefused, WrappingUnavailable

WRAPPED_BY_VAULT = b"vault:"
"""What everything begins with that the engine encrypted."""

_TIMEOUT_S = 5.0
_REMEMBERED = 4096
_REMEMBERED_S = 300.0
_NO_KEY = "key not found"


class VaultTransit:
    """Remembers the last keys for some minutes, so that not every read is a request.

    Raises WrappingRefused where a file that ``address`` names cannot be used.
    """

    def __init__(
        self, address: VaultAddress, timeout_s: float = _TIMEOUT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        address.read_token()
        self._address = address
        self._timeout_s = timeout_s
        self._clock = clock
        self._http = httpx.AsyncClient(verify=address.trusted(), timeout=timeout_s, trust_env=False)
        # Erasing holds in spite of this: only who still has the wrapped key finds its entry, and it is read from its
        # row for each use. The row is gone, so nobody asks.
        self._remembered: OrderedDict[tuple[bytes, str], tuple[bytes, float]] = OrderedDict()

    async def wrap(self, key: bytes, belongs_to: str) -> bytes:
        asked = {"plaintext": _base64(key), "associated_data": _base64(belongs_to.encode())}
        wrapped = (await self._ask("encrypt", asked, "ciphertext")).encode()
        if not wrapped.startswith(WRAPPED_BY_VAULT):
            raise self._is_no_vault()
        self._remember(wrapped, belongs_to, key)
        return wrapped

    async def unwrap(self, wrapped: bytes, belongs_to: str) -> bytes:
        remembered = self._remembered.get((wrapped, belongs_to))
        if remembered is not None and self._clock() < remembered[1]:
            self._remembered.move_to_end((wrapped, belongs_to))
            return remembered[0]
        # What was changed may be no UTF-8 any more; the server refuses it then, like everything else that is not its.
        asked = {"ciphertext": wrapped.decode(errors="replace"), "associated_data": _base64(belongs_to.encode())}
        plaintext = await self._ask("decrypt", asked, "plaintext")
        try:
            key = b64decode(plaintext, validate=True)
        except ValueError:
            raise self._is_no_vault() from None
        self._remember(wrapped, belongs_to, key)
        return key

    async def aclose(self) -> None:
        self._remembered.clear()
        await self._http.aclose()

    def _remember(self, wrapped: bytes, belongs_to: str, key: bytes) -> None:
        self._remembered[wrapped, belongs_to] = key, self._clock() + _REMEMBERED_S
        self._remembered.move_to_end((wrapped, belongs_to))
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    async def _ask(self, operation: str, body: dict[str, str], wanted: str) -> str:
        where = f"Vault at {self._address.url}"
        headers = {"X-Vault-Token": self._address.read_token(), "X-Vault-Request": "true"}
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.post(self._address.transit(operation), json=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            raise WrappingUnavailable(f"{where} did not answer within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, AttributeError) as error:
            # anyio asks for the address of a socket that is gone where a connection is reset as soon as it is made.
            raise WrappingUnavailable(
                f"{where} does not answer ({type(error).__name__}): check that it runs, and security.vault_url"
            ) from None
        if answer.status_code == httpx.codes.OK:
            return self._said(answer, wanted)
        raise self._failure(operation, answer.status_code, _reason(answer))

    def _failure(self, operation: str, status: int, reason: str) -> Exception:
        where, said = f"Vault at {self._address.url}", f"{status} {reason}".strip()
        key = f"{self._address.mount}/{operation}/{self._address.key}"
        if status in (401, 403):
            return WrappingRefused(
                f"{where} does not allow {key} ({said}): check security.vault_token or security.vault_token_file, and"
                " the token's policy"
            )
        if status == 404 or (status == 400 and _NO_KEY in reason):
            return WrappingRefused(f"{where} has no {key} ({said}): check security.vault_mount and security.vault_key")
        if status == 400 and operation == "encrypt":
            return WrappingRefused(
                f"{where} cannot encrypt by {key} ({said}): use a key of the type aes256-gcm96 that is not derived"
            )
        if status == 400:
            return CannotUnwrap(
                f"{where} does not open it ({said}): it was changed, belongs elsewhere, or was wrapped by another key"
                " or a version of it that is not there any more; set the former security.vault_key again, or restore"
                " the database and Vault from backups that belong together"
            )
        return WrappingUnavailable(f"{where} failed at {key}: {said}")

    def _said(self, answer: httpx.Response, wanted: str) -> str:
        try:
            said = answer.json()["data"][wanted]
        except (ValueError, KeyError, TypeError):
            raise self._is_no_vault() from None
        if not isinstance(said, str):
            raise self._is_no_vault()
        return said

    def _is_no_vault(self) -> WrappingUnavailable:
        return WrappingUnavailable(
            f"what answers at {self._address.url} does not answer as Vault does: check security.vault_url"
        )


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _reason(answer: httpx.Response) -> str:
    try:
        return "; ".join(answer.json()["errors"])[:200]
    except (ValueError, KeyError, TypeError):
        return ""
