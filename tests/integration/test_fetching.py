"""What tenants let be fetched and the sites that they name: decided in one transaction, and nobody else's to see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from command_api import fetching
from command_api.admission import Refused
from command_api.fetching import NoSuchSite, SiteExists
from command_api.prompt_sources import PromptSources
from event_schemas.chat import ChatMessage, ImagePart, Part, TextPart
from event_schemas.codec import decode
from event_schemas.fetching import FetchingSet, FetchRules, SiteAdded, SiteChanged, SiteRemoved
from event_schemas.generation import PromptContent
from event_schemas.sources import ChoiceWish, SiteWish, SourceWish, TextWish, UrlWish
from tests.conftest import TestDatabase
from workers.sources.tenant_sites import TenantSites

ON = FetchRules(enabled=True, deny=("denied.example",))
URL = UrlWish(url="https://a.example/x")


def site(name: str = "News", **changed: Any) -> dict[str, Any]:
    domain = f"{name.lower().replace(' ', '-')}.example"
    told = {"name": name, "domain": domain, "description": None, "urls": [f"https://{domain}/feed?key=secret"]}
    return {**told, "every_s": 900, **changed}


@dataclass
class Store:
    commands: PostgresDatabase
    workers: PostgresDatabase
    owner: asyncpg.Connection
    tenant: UUID = field(default_factory=new_id)

    async def told(self) -> list[object]:
        rows = await self.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
        assert not any(b"secret" in row["envelope"] for row in rows)
        return [decode(row["envelope"]).data for row in rows]

    async def prompt(self, *messages: ChatMessage | str, given: tuple[SourceWish, ...] = ()) -> PromptContent:
        said = tuple(one if isinstance(one, ChatMessage) else ChatMessage(role="user", content=one) for one in messages)
        return await PromptSources(self.commands).of(self.tenant, PromptContent(messages=said), given)


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    commands = PostgresDatabase(database.role_url("command_api"), pool_size=4)
    workers = PostgresDatabase(database.role_url("worker"), pool_size=2)
    owner = await asyncpg.connect(database.owner_url)
    yield Store(commands, workers, owner)
    await owner.close()
    await workers.close()
    await commands.close()


async def test_without_rules_prompts_name_no_urls_and_rules_are_their_tenants_own(store: Store) -> None:
    assert await fetching.fetch_rules(store.commands, store.tenant) == FetchRules()
    assert await fetching.set_fetching(store.commands, store.tenant, ON, actor="key:me")
    assert not await fetching.set_fetching(store.commands, store.tenant, ON, actor="key:me")
    assert await fetching.set_fetching(store.commands, store.tenant, FetchRules(), actor="key:me")
    await fetching.set_fetching(store.commands, store.tenant, ON, actor="key:me")
    assert [one.rules for one in await store.told() if isinstance(one, FetchingSet)] == [ON, FetchRules(), ON]
    for tenant, rules in ((store.tenant, ON), (new_id(), FetchRules())):
        assert await fetching.fetch_rules(store.commands, tenant) == rules
        assert await TenantSites(store.workers).rules(tenant) == rules


async def test_a_site_is_added_changed_and_removed_and_found_by_name_or_domain(store: Store) -> None:
    sites = TenantSites(store.workers)
    added = await fetching.add_site(store.commands, store.tenant, site(), actor="key:me")
    for named in ("news", "NEWS", "News.Example"):
        found = await sites.site(store.tenant, named)
        assert found is not None
        assert (found.name, found.urls, found.every_s) == ("News", ("https://news.example/feed?key=secret",), 900)
    changed = site("Weather", every_s=60, description="rain")
    row = await fetching.change_site(store.commands, store.tenant, added["id"], changed, actor="key:me")
    assert (row["id"], row["name"], row["every_s"]) == (added["id"], "Weather", 60)
    assert await sites.site(store.tenant, "news") is None
    assert await sites.site(new_id(), "weather") is None
    assert await fetching.sites(store.commands, new_id()) == []
    assert [one["name"] for one in await fetching.sites(store.commands, store.tenant)] == ["Weather"]
    for wrong in (store.tenant, new_id()):
        with pytest.raises(NoSuchSite):
            await fetching.change_site(store.commands, wrong, new_id(), site(), actor="key:me")
    with pytest.raises(NoSuchSite):
        await fetching.remove_site(store.commands, new_id(), added["id"], actor="key:me")
    await fetching.remove_site(store.commands, store.tenant, added["id"], actor="key:me")
    with pytest.raises(NoSuchSite):
        await fetching.remove_site(store.commands, store.tenant, added["id"], actor="key:me")
    told = await store.told()
    assert [type(one) for one in told] == [SiteAdded, SiteChanged, SiteRemoved]
    assert isinstance(told[0], SiteAdded)
    assert told[0].urls == ("https://news.example/feed",)


async def test_names_and_domains_are_given_once_and_urls_can_be_fetched(store: Store) -> None:
    await fetching.set_fetching(store.commands, store.tenant, ON, actor="key:me")
    await fetching.add_site(store.commands, store.tenant, site(), actor="key:me")
    other = await fetching.add_site(store.commands, store.tenant, site("Weather"), actor="key:me")
    await fetching.add_site(store.commands, new_id(), site(), actor="key:me")
    for wrong, field_ in ((site("NEWS", domain="x.example"), "name"), (site("x", domain="news.example"), "domain")):
        with pytest.raises(SiteExists, match=field_):
            await fetching.add_site(store.commands, store.tenant, wrong, actor="key:me")
        with pytest.raises(SiteExists, match=field_):
            await fetching.change_site(store.commands, store.tenant, other["id"], wrong, actor="key:me")
    await fetching.change_site(store.commands, store.tenant, other["id"], site("weather"), actor="key:me")
    for url in ("ftp://a.example/", "https://me:you@a.example/", "https://denied.example/"):
        with pytest.raises(Refused) as refused:
            await fetching.add_site(store.commands, store.tenant, site("x", urls=["https://a.example", url]), actor="k")
        assert (refused.value.type, refused.value.field) == ("unusable-url", "body.urls.1")


async def test_what_a_prompt_begins_with_becomes_its_sources(store: Store) -> None:
    await fetching.add_site(store.commands, store.tenant, site(), actor="key:me")
    text = "|RAG|news.example|/RAG||CONTEXT|It is red.|/CONTEXT| https://a.example/x Which?"
    marks = (SiteWish(site="news.example"), TextWish(text="It is red."))
    found = await store.prompt("before", text)
    assert found.sources == marks
    assert [one.text for one in found.messages] == ["before", "https://a.example/x Which?"]
    await fetching.set_fetching(store.commands, store.tenant, ON, actor="key:me")
    found = await store.prompt("before", text, given=(SiteWish(site="NEWS", optional=True),))
    assert found.sources == (SiteWish(site="NEWS", optional=True), *marks, URL)
    assert [one.text for one in found.messages] == ["before", "Which?"]
    for untouched in ("Which?", "What is https://a.example/x ?"):
        content = PromptContent(messages=(ChatMessage(role="user", content=untouched),))
        assert await store.prompt(untouched) == content
    tool = ChatMessage(role="tool", content=text, tool_call_id="1")
    assert (await store.prompt(tool)).sources == ()
    again = await PromptSources(store.commands).of(store.tenant, PromptContent(messages=()), (URL,))
    assert (again.messages, again.sources) == ((), (URL,))


async def test_the_first_part_of_a_message_of_parts_is_read_like_its_text(store: Store) -> None:
    image = ImagePart(url="https://a.example/tea.png")

    async def asked(*parts: Part) -> tuple[str | tuple[Part, ...], tuple[SourceWish, ...]]:
        found = await store.prompt(ChatMessage(role="user", content=parts))
        return found.messages[-1].content, found.sources

    wishes = (TextWish(text="It is red."),)
    mark = "|CONTEXT|It is red.|/CONTEXT|"
    assert await asked(TextPart(text=f"{mark} Which?")) == ("Which?", wishes)
    assert await asked(TextPart(text=f"{mark} Which?"), image) == ((TextPart(text="Which?"), image), wishes)
    assert await asked(TextPart(text=mark), TextPart(text="Which?")) == ((TextPart(text="Which?"),), wishes)
    later = (image, TextPart(text=f"{mark} Which?"))
    assert await asked(*later) == (later, ())
    with pytest.raises(Refused, match="no question"):
        await asked(TextPart(text=mark))


@pytest.mark.parametrize(
    ("text", "given", "type", "field_", "words"),
    [
        ("|RAG|gossip|/RAG| x", (), "unknown-site", "body.input", "'gossip'. There are: news"),
        ("x", (TextWish(text="a"), SiteWish(site="a")), "unknown-site", "body.sources.1", "'a'"),
        (
            "x",
            (ChoiceWish(among=(SiteWish(site="news"), SiteWish(site="b"))),),
            "unknown-site",
            "body.sources.0",
            "'b'",
        ),
        ("https://denied.example/ x", (), "source-refused", "body.input", "denied.example is denied"),
        ("x", (UrlWish(url="https://DENIED.example./"),), "source-refused", "body.sources.0", "is denied"),
        ("x", (UrlWish(url="file:///etc/passwd"),), "source-refused", "body.sources.0", "https://"),
        ("|CONTEXT|a x", (), "bad-source-mark", "body.input", "|/CONTEXT|"),
        ("|CONTEXT|a|/CONTEXT|", (), "bad-source-mark", "body.input", "no question"),
        ("https://a.example/ " * 9 + "x", (), "too-many-sources", "body.sources", "9 sources, the limit is 8"),
    ],
)
async def test_what_cannot_be_is_refused_before_it_is_queued(
    text: str, given: tuple[SourceWish, ...], type: str, field_: str, words: str, store: Store
) -> None:
    await fetching.set_fetching(store.commands, store.tenant, ON, actor="key:me")
    await fetching.add_site(store.commands, store.tenant, site(), actor="key:me")
    with pytest.raises(Refused) as refused:
        await store.prompt(text, given=given)
    assert (refused.value.type, refused.value.field) == (type, field_)
    assert words in str(refused.value)


async def test_where_prompts_may_name_no_urls_one_that_does_is_told_who_can_change_that(store: Store) -> None:
    with pytest.raises(Refused, match="PUT /v1/fetching"):
        await store.prompt("x", given=(URL,))
