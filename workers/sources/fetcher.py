"""One GET for somebody else: bounded in size, time, redirects and types, and with no memory of the one before."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpx

from backplane.security.fetch_rules import NotFetchable, host_in, named
from backplane.security.public_address import NotPublic

MOST_REDIRECTS = 5
_CONNECT_S, _SILENCE_S = 5.0, 10.0
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_GZIP = 16 + zlib.MAX_WBITS


class CannotFetch(Exception):
    """``status`` is what was answered instead, None where nothing was. The message names a host and no URL."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with 200, or with 304 where validators were sent."""

    url: str
    """Where it was found."""
    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes

    @property
    def media_type(self) -> str:
        return _media_type(self.headers)


Leave = Callable[[httpx.URL], Awaitable[None]]
"""Is asked before each request, redirects too. Raises NotFetchable, CannotFetch."""


def parsed(url: str) -> httpx.URL:
    """A URL that could be fetched, without its fragment. Raises NotFetchable."""
    host_in(url)
    try:
        found = httpx.URL(url).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError):
        raise NotFetchable("the URL is not one") from None
    if found.scheme not in ("http", "https") or not found.raw_host or found.userinfo:
        raise NotFetchable("the URL can be read in two ways")
    return found


def host_of(url: httpx.URL) -> str:
    """As rules name it. It is what is connected to, so rules are asked with this one."""
    return named(url.raw_host.decode("ascii"))


class Fetcher:
    """Over ``transport``, which has to be one that reaches public addresses only; closes it with itself.

    No cookie is kept, no credential sent. ``http://`` is asked as ``https://``, unless ``in_the_clear``.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, user_agent: str, *, in_the_clear: bool = False) -> None:
        self._transport = transport
        self._user_agent = user_agent
        self._in_the_clear = in_the_clear

    async def get(
        self,
        url: httpx.URL,
        leave: Leave,
        *,
        most_bytes: int,
        types: Collection[str] | None,
        validators: Mapping[str, str] | None = None,
    ) -> Fetched:
        """``url``, or what it leads to, of one of the media ``types``; None takes any. Bound its time from outside.

        Raises CannotFetch, NotFetchable.
        """
        for _ in range(MOST_REDIRECTS + 1):
            if url.scheme == "http" and not self._in_the_clear:
                url = url.copy_with(scheme="https")
            await leave(url)
            async with self._answered(url, types, validators or {}) as response:
                if response.status_code in _REDIRECTS:
                    url = _leads_to(url, response)
                    continue
                headers = {name.lower(): value for name, value in response.headers.items()}
                if response.status_code == 304 and validators:
                    return Fetched(str(url), 304, headers, b"")
                if response.status_code != 200:
                    raise CannotFetch(f"{host_of(url)} answered {response.status_code}", response.status_code)
                if types is not None and _media_type(headers) not in types:
                    raise CannotFetch(f"what {host_of(url)} has there is neither a text, a page nor a feed")
                return Fetched(str(url), 200, headers, await _body(response, most_bytes, host_of(url)))
        raise CannotFetch(f"it leads on more than {MOST_REDIRECTS} times")

    async def aclose(self) -> None:
        await self._transport.aclose()

    @asynccontextmanager
    async def _answered(
        self, url: httpx.URL, types: Collection[str] | None, validators: Mapping[str, str]
    ) -> AsyncGenerator[httpx.Response]:
        host = host_of(url)
        request = httpx.Request(
            "GET",
            url,
            headers={
                "user-agent": self._user_agent,
                "accept": ", ".join(types or ("*/*",)),
                # What is packed otherwise could not be unpacked within bounds.
                "accept-encoding": "gzip",
                **validators,
            },
            extensions={"timeout": httpx.Timeout(_SILENCE_S, connect=_CONNECT_S).as_dict()},
        )
        try:
            response = await self._transport.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        except NotPublic as error:
            raise CannotFetch(str(error)) from None
        except httpx.InvalidURL:
            raise CannotFetch(f"the URL of {host} cannot be used") from None
        except httpx.TimeoutException:
            raise CannotFetch(f"{host} did not answer in time") from None
        except httpx.ConnectError:
            raise CannotFetch(f"no connection to {host} could be made") from None
        except httpx.HTTPError as error:
            # What these say may hold what the server sent.
            raise CannotFetch(f"{host} broke off, or speaks no HTTP ({type(error).__name__})") from None


def _leads_to(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    try:
        return parsed(str(url.join(response.headers["location"])))
    except (KeyError, httpx.InvalidURL, UnicodeError, NotFetchable):
        raise CannotFetch(f"{host_of(url)} leads to where nothing can be fetched", response.status_code) from None


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body(response: httpx.Response, most_bytes: int, host: str) -> bytes:
    """Unpacked as it comes, and never more than ``most_bytes`` of it."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise CannotFetch(f"{host} packs its answer as it was not asked to")
    unpacking = zlib.decompressobj(_GZIP) if encoding.endswith("gzip") else None
    body = bytearray()
    async with aclosing(cast(AsyncGenerator[bytes], response.aiter_raw())) as chunks:
        async for chunk in chunks:
            if unpacking is not None:
                try:
                    chunk = unpacking.decompress(chunk, most_bytes + 1 - len(body))
                except zlib.error:
                    raise CannotFetch(f"what {host} answered cannot be unpacked") from None
            body += chunk
            if len(body) > most_bytes:
                raise CannotFetch(f"what {host} has there is larger than {most_bytes} bytes")
            await asyncio.sleep(0)  # a body that is there already must not hold the loop
    if unpacking is not None and not unpacking.eof:
        raise CannotFetch(f"{host} broke off")
    return bytes(body)
