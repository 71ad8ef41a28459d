"""What is fetched for strangers, over real connections: what they reach, and what they cannot be made to do.

Whatever a name resolves to and a page leads to, the guards are asserted where sockets connect: an audit hook of the
interpreter tells every address that this process connects to.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from backplane.security.fetch_rules import NotFetchable, check
from backplane.security.public_transport import Lookup, PublicTransport
from event_schemas.fetching import FetchRules
from tests.integration.test_public_transport import certificate, names
from tests.web import Web, packed, response, web
from workers.sources.fetcher import CannotFetch, Fetched, Fetcher, host_of, parsed

HTML = ("text/html",)
MOST = 100_000
RULES = FetchRules(enabled=True, deny=("denied.example",))

_watching: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        for one in _watching:
            one.append(str(arguments[1][0]))


sys.addaudithook(_watch)


@pytest.fixture
def connected() -> Iterator[list[str]]:
    """Addresses that sockets of this process were connected to."""
    found: list[str] = []
    _watching.append(found)
    yield found
    _watching.remove(found)


async def leave(url: httpx.URL) -> None:
    check(RULES, host_of(url), of_site=False)


@asynccontextmanager
async def fetcher(**transport: Any) -> AsyncIterator[Fetcher]:
    made = Fetcher(
        PublicTransport(**transport), "Parley/1 (test)", in_the_clear=bool(transport.get("allow_private", False))
    )
    try:
        yield made
    finally:
        await made.aclose()


async def got(one: Fetcher, url: str, validators: dict[str, str] | None = None) -> Fetched:
    return await one.get(parsed(url), leave, most_bytes=MOST, types=HTML, validators=validators)


@asynccontextmanager
async def here() -> AsyncIterator[tuple[Web, Fetcher]]:
    """A server on this machine, and who may reach it."""
    async with web() as server, fetcher(allow_private=True) as one:
        yield server, one


async def test_a_page_comes_as_it_is_and_nothing_of_one_request_is_in_the_next() -> None:
    async with here() as (server, one):
        server.has["/tea"] = response(200, "<p>Tea", set_cookie="seen=1; Path=/", ETag='"a"')
        for _ in range(2):
            found = await got(one, server.url("/tea#leaves"))
            assert (found.url, found.body, found.media_type) == (server.url("/tea"), b"<p>Tea", "text/html")
            assert found.headers["etag"] == '"a"'
        assert server.connections == 2
        for asked in server.asked:
            assert asked.headers["user-agent"] == "Parley/1 (test)"
            assert not {"cookie", "authorization"} & set(asked.headers)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "0",
        "0.0.0.0",
        "localhost",
        "localhost.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1%25lo]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "①②⑦.⓪.⓪.①",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_form_of_a_local_address_is_connected_to(host: str, scheme: str, connected: list[str]) -> None:
    async with web() as server, fetcher() as one:
        with pytest.raises((CannotFetch, NotFetchable)):
            await got(one, f"{scheme}://{host}:{server.port}/")
        assert connected == []
        assert server.connections == 0


async def test_a_name_that_resolves_anew_is_connected_to_as_it_was_checked(
    monkeypatch: pytest.MonkeyPatch, connected: list[str]
) -> None:
    answers = [["192.0.2.1"], ["127.0.0.1"]]

    async def rebinding(host: str, port: int) -> list[str]:
        return answers.pop(0)

    # Nobody answers at that address, which stands for one of the internet.
    monkeypatch.setattr("backplane.security.public_transport.is_public", lambda address: address == "192.0.2.1")
    async with web() as server, fetcher(lookup=rebinding) as one:
        with pytest.raises((CannotFetch, TimeoutError)):
            async with asyncio.timeout(1):
                await got(one, f"https://rebinding.example:{server.port}/")
        assert set(connected) <= {"192.0.2.1"}
        with pytest.raises(CannotFetch, match="not on the internet"):
            await got(one, f"https://rebinding.example:{server.port}/")
        assert "127.0.0.1" not in connected
        assert server.connections == 0


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("https://inner.example/", "not on the internet"),
        ("http://inner.example/", "not on the internet"),
        ("https://10.0.0.1/", "not on the internet"),
        ("https://[::ffff:10.0.0.1]/", "not on the internet"),
        ("https://167772161/", "not on the internet"),
        ("//inner.example/", "not on the internet"),
        ("https://denied.example/", "denied"),
        ("https://denied.example./", "denied"),
        ("file:///etc/passwd", "nothing can be fetched"),
        ("gopher://inner.example/", "nothing can be fetched"),
        ("https://me:secret@inner.example/", "nothing can be fetched"),
    ],
)
async def test_where_a_page_leads_is_checked_as_if_it_were_asked_for(
    target: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: list[str]
) -> None:
    monkeypatch.setattr("backplane.security.public_transport.is_public", lambda address: address == "127.0.0.1")
    server_tls, trusting = certificate(tmp_path, "outer.example")

    async def lookup(host: str, port: int) -> list[str]:
        known = {"outer.example": "127.0.0.1", "denied.example": "127.0.0.1", "inner.example": "10.0.0.1"}
        return [known.get(host, "10.0.0.1")]

    async with web(server_tls) as server, fetcher(lookup=lookup, verify=trusting) as one:
        server.has["/"] = response(302, location=target)
        with pytest.raises((CannotFetch, NotFetchable), match=why) as refused:
            await got(one, f"https://outer.example:{server.port}/")
        assert "secret" not in str(refused.value)
        assert server.paths == ["/"]
        assert set(connected) == {"127.0.0.1"}


async def test_some_redirects_are_followed_and_endless_ones_are_not() -> None:
    async with here() as (server, one):
        for step in range(9):
            server.has[f"/{step}"] = response(301 + step % 2, location=f"/{step + 1}")
        server.has["/5"] = response(200, "there")
        found = await got(one, server.url("/0"))
        assert (found.url, found.body) == (server.url("/5"), b"there")
        server.has["/5"] = response(308, location="/0")
        with pytest.raises(CannotFetch, match="more than 5 times"):
            await got(one, server.url("/0"))
        assert len(server.asked) == 12


async def test_http_becomes_https_where_nobody_may_read_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backplane.security.public_transport.is_public", lambda address: True)
    server_tls, trusting = certificate(tmp_path, "page.example")
    lookup: Lookup = names(page_example=["127.0.0.1"])
    async with web(server_tls) as server, fetcher(lookup=lookup, verify=trusting) as one:
        server.has["/"] = response(200, "sealed")
        found = await got(one, f"http://page.example:{server.port}/")
        assert (found.url, found.body) == (f"https://page.example:{server.port}/", b"sealed")


@pytest.mark.parametrize("layers", [1, 2])
async def test_what_unpacks_without_end_is_given_up_at_the_limit(layers: int) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 1)
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    assert len(bomb) < 1_000_000
    async with here() as (server, one):
        encoding = ", ".join(["gzip"] * layers)
        server.has["/"] = response(200, bomb, content_encoding=encoding)
        tracemalloc.start()
        try:
            with pytest.raises(CannotFetch, match=r"larger than 100000|as it was not asked"):
                await got(one, server.url())
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 10_000_000


async def test_packed_bodies_are_unpacked_whole_or_not_at_all() -> None:
    async with here() as (server, one):
        server.has["/"] = packed(b"word " * 1000)
        assert (await got(one, server.url())).body == b"word " * 1000
        exactly = b"a" * MOST
        server.has["/"] = packed(exactly)
        assert (await got(one, server.url())).body == exactly
        cut = zlib.compress(b"word " * 1000, wbits=31)[:-10]
        server.has["/"] = response(200, cut, content_encoding="gzip")
        with pytest.raises(CannotFetch, match="broke off"):
            await got(one, server.url())
        server.has["/"] = response(200, b"no gzip at all", content_encoding="gzip")
        with pytest.raises(CannotFetch, match="cannot be unpacked"):
            await got(one, server.url())
        server.has["/"] = response(200, b"x", content_encoding="br")
        with pytest.raises(CannotFetch, match="as it was not asked"):
            await got(one, server.url())


async def test_an_endless_body_ends_at_the_limit_and_the_connection_with_it() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
        while True:
            writer.write(b"a" * 65536)
            await writer.drain()

    async with here() as (server, one):
        server.has["/"] = endless
        with pytest.raises(CannotFetch, match="larger than 100000 bytes"):
            await got(one, server.url())
        async with asyncio.timeout(10):
            while server.open:
                await asyncio.sleep(0.01)


async def test_endless_headers_end_too() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-more: " + b"a" * 8192 + b"\r\n")
            await writer.drain()

    async with here() as (server, one):
        server.has["/"] = endless
        with pytest.raises(CannotFetch, match="broke off, or speaks no HTTP"):
            await got(one, server.url())


async def test_a_body_that_drips_is_left_when_time_is_up() -> None:
    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with here() as (server, one):
        server.has["/"] = drips
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await got(one, server.url())
        async with asyncio.timeout(10):
            while server.open:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (response(404), "answered 404"),
        (response(500), "answered 500"),
        (response(204), "answered 204"),
        (response(304), "answered 304"),
        (response(200, b"MZ", type="application/octet-stream"), "neither a text, a page nor a feed"),
        (response(200, b"x", type=""), "neither a text, a page nor a feed"),
        (response(302), "leads to where nothing"),
        (b"220 mail.example.com ESMTP\r\n\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 99\r\n\r\nhalf", "broke off"),
        (b"", "broke off"),
    ],
)
async def test_what_is_no_page_is_said_so_without_its_url(answer: bytes, why: str) -> None:
    async with here() as (server, one):
        server.has["/x?token=secret"] = answer
        with pytest.raises(CannotFetch, match=why) as refused:
            await got(one, server.url("/x?token=secret"))
        assert "secret" not in str(refused.value)


async def test_validators_are_sent_and_a_304_comes_through() -> None:
    async with here() as (server, one):
        server.has["/"] = response(304)
        found = await got(one, server.url(), validators={"if-none-match": '"a"'})
        assert (found.status, found.body) == (304, b"")
        assert server.asked[0].headers["if-none-match"] == '"a"'
