"""Pages as text: what is read of them, what is kept of them, and whether their host wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backplane.ports.identifiers import new_id
from backplane.security.fetch_rules import NotFetchable
from backplane.security.public_transport import PublicTransport
from backplane.settings import SourceSettings
from event_schemas.fetching import FetchRules
from tests.contract.page_cache.memory import MemoryPageCache
from tests.web import Web, packed, page, response, web
from workers.sources.extractor import Extractor
from workers.sources.fetcher import CannotFetch, Fetcher
from workers.sources.pages import Pages
from workers.sources.robots import Robots

RULES = FetchRules(enabled=True, robots=False)
POLITE = FetchRules(enabled=True)
TENANT = new_id()
SETTINGS = SourceSettings(allow_private=True)
RSS = """<?xml version="1.0"?><rss version="2.0"><channel><title>News of tea</title>
<item><title>A new leaf</title><link>https://tea.example/1</link><pubDate>Sun, 01 Mar 2026 12:00:00 GMT</pubDate>
<description>&lt;p&gt;It is &lt;b&gt;green&lt;/b&gt;.&lt;/p&gt;&lt;script&gt;x()&lt;/script&gt;</description></item>
<item><title>Another</title></item></channel></rss>"""
ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>Kettles</title>
<entry><title>Whistles</title><updated>2026-03-02T08:00:00Z</updated><summary>Loud.</summary>
<link href="https://tea.example/2"/></entry></feed>"""
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12))
    + ']><rss version="2.0"><channel><title>&m;</title></channel></rss>'
)
THIEF = (
    '<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    '<rss version="2.0"><channel><title>t</title><item><title>&x;</title></item></channel></rss>'
)


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    made = Extractor()
    yield made
    await made.aclose()


@asynccontextmanager
async def reading(extractor: Extractor, settings: SourceSettings = SETTINGS) -> AsyncIterator[tuple[Web, Pages]]:
    cache = MemoryPageCache()
    fetcher = Fetcher(PublicTransport(allow_private=True), settings.user_agent, in_the_clear=True)
    async with web() as server:
        try:
            yield server, Pages(fetcher, extractor, Robots(fetcher, cache, settings.user_agent), cache, settings)
        finally:
            await fetcher.aclose()


async def test_of_a_page_its_main_text_is_read_of_a_feed_its_items_and_a_text_as_it_is(extractor: Extractor) -> None:
    green = "Green tea is made of leaves that were heated soon after they were picked, so that they stay green."
    async with reading(extractor) as (server, pages):
        server.has = {
            "/page": packed(page("On tea", green, "A second paragraph.").encode()),
            "/rss": response(200, RSS, type="application/rss+xml"),
            "/atom": response(200, ATOM, type="text/xml; charset=utf-8"),
            "/text": response(200, "naïve".encode("latin-1"), type="text/plain; charset=latin-1"),
            "/odd": response(200, "# Tea\x00", type="text/markdown; charset=no-such-one"),
        }
        said = {path: await pages.page(TENANT, server.url(path), RULES) for path in server.has}
    assert said["/page"].title == "On tea"
    assert green in said["/page"].text
    assert "Home" not in said["/page"].text
    assert said["/rss"].title == "News of tea"
    assert said["/rss"].text == "A new leaf (2026-03-01)\nIt is green.\nhttps://tea.example/1\n\nAnother"
    assert (said["/atom"].title, said["/atom"].text) == (
        "Kettles",
        "Whistles (2026-03-02)\nLoud.\nhttps://tea.example/2",
    )
    assert (said["/text"].title, said["/text"].text) == (None, "naïve")
    assert said["/odd"].text == "# Tea\ufffd"


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (LAUGHS, "application/xml"),
        ("<div>" * 200_000, "text/html"),
        ("<svg xmlns='http://www.w3.org/2000/svg'/>", "application/xml"),
        ("", "text/html"),
        (" \n", "text/plain"),
    ],
)
async def test_what_has_no_text_is_said_to_have_none_and_the_next_page_is_read(
    body: str, type: str, extractor: Extractor
) -> None:
    async with reading(extractor) as (server, pages):
        server.has = {"/": response(200, body, type=type), "/good": response(200, "good", type="text/plain")}
        with pytest.raises(CannotFetch, match=r"cannot be used|too long to be read"):
            await pages.page(TENANT, server.url(), RULES)
        assert (await pages.page(TENANT, server.url("/good"), RULES)).text == "good"


async def test_no_file_of_ours_is_in_what_is_read(extractor: Extractor) -> None:
    async with reading(extractor) as (server, pages):
        server.has["/"] = response(200, THIEF, type="application/rss+xml")
        try:
            text = (await pages.page(TENANT, server.url(), RULES)).text
        except CannotFetch as refused:
            text = str(refused)
    assert "root:" not in text


async def test_a_page_that_takes_too_long_to_read_is_given_up_and_its_process_with_it() -> None:
    hasty = Extractor(longest_s=0.05, most=1)
    try:
        assert (await hasty.extract(b"first", "text/plain", None)).text == "first"  # libraries are loaded by it
        slow = b"<p>" + b"<a href=x>word</a> <table><tr><td>" * 100_000
        with pytest.raises(CannotFetch, match="too long"):
            await hasty.extract(slow, "text/html", None)
        assert (await hasty.extract(b"next", "text/plain", None)).text == "next"
    finally:
        await hasty.aclose()


async def test_a_page_that_takes_its_time_holds_up_no_other(extractor: Extractor) -> None:
    slow = asyncio.create_task(
        extractor.extract(b"<p>" + b"<a href=x>word</a> <table><tr><td>" * 100_000, "text/html", None)
    )
    quick = [extractor.extract(b"%d" % number, "text/plain", None) for number in range(6)]
    assert [one.text for one in await asyncio.gather(*quick)] == [*"012345"]
    assert not slow.done()
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_a_reader_that_was_stopped_in_the_middle_gives_the_next_page_its_own_answer(extractor: Extractor) -> None:
    await extractor.extract(b"first", "text/plain", None)
    slow = asyncio.create_task(extractor.extract(b"<p>" + b"<i>x</i>" * 300_000, "text/html", None))
    await asyncio.sleep(0)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert (await extractor.extract(b"second", "text/plain", None)).text == "second"


async def test_a_page_is_kept_for_its_tenant_while_it_is_fresh_and_then_asked_whether_it_has_changed(
    extractor: Extractor,
) -> None:
    async with reading(extractor) as (server, pages):
        server.has = {
            "/fresh": response(200, "a", type="text/plain", cache_control="max-age=300"),
            "/stale": response(200, "b", type="text/plain", cache_control="no-cache", ETag='"1"'),
            "/never": response(200, "c", type="text/plain", cache_control="no-store", ETag='"1"'),
        }
        for path in server.has:
            for _ in range(2):
                assert (await pages.page(TENANT, server.url(path), RULES)).text in "abc"
        assert server.paths == ["/fresh", "/stale", "/stale", "/never", "/never"]
        assert [one.headers.get("if-none-match") for one in server.asked] == [None, None, '"1"', None, None]
        server.has["/stale"] = response(304)
        assert (await pages.page(TENANT, server.url("/stale"), RULES)).text == "b"
        await pages.page(new_id(), server.url("/fresh"), RULES)
        assert server.paths[-2:] == ["/stale", "/fresh"]


async def test_a_site_says_how_often_its_pages_are_fetched(extractor: Extractor) -> None:
    async with reading(extractor) as (server, pages):
        server.has["/"] = response(200, "a", type="text/plain", cache_control="no-store")
        off = FetchRules(robots=False)
        for _ in range(3):
            await pages.page(TENANT, server.url(), off, every_s=900)
        assert len(server.asked) == 1
        await pages.page(TENANT, server.url(), off, every_s=0)
        assert len(server.asked) == 2


async def test_rules_hold_for_what_is_kept_too(extractor: Extractor) -> None:
    async with reading(extractor) as (server, pages):
        server.has = {
            "/": response(302, location=f"http://localhost:{server.port}/there"),
            "/there": response(200, "a", type="text/plain", cache_control="max-age=300"),
        }
        assert (await pages.page(TENANT, server.url(), RULES)).url == f"http://localhost:{server.port}/there"
        denied = FetchRules(enabled=True, robots=False, deny=("localhost",))
        with pytest.raises(NotFetchable, match="localhost is denied"):
            await pages.page(TENANT, server.url(), denied)
        assert len(server.asked) == 2


async def test_what_robots_txt_forbids_is_not_asked_for(extractor: Extractor) -> None:
    robots = "User-agent: *\nDisallow: /\n\nUser-agent: parley\nDisallow: /private*\nAllow: /private/but$\n"
    async with reading(extractor) as (server, pages):
        server.has = {
            "/robots.txt": response(200, robots, type="text/plain"),
            "/private/x": response(200, "secret", type="text/plain"),
            "/private/but": response(200, "but", type="text/plain"),
            "/leads": response(302, location="/private/x"),
        }
        for path in ("/private/x", "/leads"):
            with pytest.raises(CannotFetch, match=r"robots\.txt of 127\.0\.0\.1 forbids"):
                await pages.page(TENANT, server.url(path), POLITE)
        assert (await pages.page(TENANT, server.url("/private/but"), POLITE)).text == "but"
        assert server.paths == ["/robots.txt", "/leads", "/private/but"]
        assert (await pages.page(TENANT, server.url("/private/x"), RULES)).text == "secret"


@pytest.mark.parametrize(("answer", "allowed"), [(response(404), True), (response(410), True), (response(503), False)])
async def test_who_has_no_robots_txt_forbids_nothing_and_who_cannot_say_forbids_all(
    answer: bytes, allowed: bool, extractor: Extractor
) -> None:
    async with reading(extractor) as (server, pages):
        server.has = {"/robots.txt": answer, "/": response(200, "a", type="text/plain")}
        if allowed:
            assert (await pages.page(TENANT, server.url(), POLITE)).text == "a"
        else:
            with pytest.raises(CannotFetch, match="cannot be had"):
                await pages.page(TENANT, server.url(), POLITE)
            assert server.paths == ["/robots.txt"]
