"""HTTP requests that are made for somebody else: to addresses of the internet only, whatever a name resolves to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from backplane.security.public_address import NotPublic, is_public

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""From a host and a port to addresses. Raises OSError."""

_LOOKUPS = 32
_MOST_ADDRESSES = 4


class PublicTransport(httpx.AsyncBaseTransport):
    """A transport for ``httpx.AsyncClient``, which needs ``trust_env=False``: a proxy would look names up by itself.

    A host is looked up once for each request. All that it resolves to must be public, and what is connected to is one
    of these very addresses, so a name that resolves otherwise a moment later gains nothing; nor does a redirect, which
    is a request of its own. Certificates are checked against the name, and no connection serves two requests.

    ``allow_private`` allows every address, and HTTP without TLS: for development.

    Raises NotPublic, and what httpx raises.
    """

    def __init__(
        self, *, allow_private: bool = False, lookup: Lookup | None = None, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._allow_private = allow_private
        # Of their own: a name whose servers never answer blocks a thread for long.
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup")
        self._lookup = lookup or self._ask_system
        self._direct = httpx.AsyncHTTPTransport(
            verify=verify, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        host = url.raw_host.decode("ascii")
        if url.scheme != "https" and not self._allow_private:
            raise NotPublic("the URL is not https")
        failed: httpx.TransportError = httpx.ConnectError(f"{host} has no address", request=request)
        for address in await self._addresses(host, url.port or (443 if url.scheme == "https" else 80), request):
            try:
                return await self._direct.handle_async_request(
                    httpx.Request(
                        request.method,
                        url.copy_with(host=address),
                        headers=request.headers,
                        stream=request.stream,
                        extensions=request.extensions | {"sni_hostname": host},
                    )
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error
        raise failed

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._direct.aclose()

    async def _addresses(self, host: str, port: int, request: httpx.Request) -> list[str]:
        try:
            found = await self._lookup(host, port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} cannot be resolved: {error}", request=request) from None
        if not self._allow_private and not all(is_public(address) for address in found):
            raise NotPublic(f"{host} is not on the internet: it has an address that is private, local or reserved")
        return found[:_MOST_ADDRESSES]

    async def _ask_system(self, host: str, port: int) -> list[str]:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(info[4][0]) for info in found))
