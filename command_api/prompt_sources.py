"""What a prompt is to be answered from: what it names beside its text and in it, held against its tenant's rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from backplane.ports.database import Database, TenantSession
from backplane.security.fetch_rules import NotFetchable, check, host_in
from command_api.admission import Refused
from command_api.fetching import rules_of
from command_api.source_body import MOST
from command_api.source_marks import BadMark, may_begin_with_sources, parse
from event_schemas.chat import ChatMessage, Part, TextPart
from event_schemas.fetching import FetchRules
from event_schemas.generation import PromptContent
from event_schemas.sources import ChoiceWish, CollectionWish, SiteWish, SourceWish, UrlWish


class PromptSources:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, tenant_id: UUID, content: PromptContent, given: Sequence[SourceWish]) -> PromptContent:
        """``content`` with ``given``, and with what stands at the beginning of its last message, taken off there.

        Raises Refused, DatabaseUnavailable.
        """
        text, others = _beginning(content.messages)
        if not given and not may_begin_with_sources(text):
            return content
        async with self._database.tenant(tenant_id) as session:
            rules = await rules_of(session)
            rows = await session.all("SELECT lower(name) AS name, domain FROM control.sites ORDER BY lower(name)")
            given = [await _named(session, wish, f"body.sources.{number}") for number, wish in enumerate(given)]
        try:
            marked = parse(text, urls=rules.enabled, more=bool(others))
        except BadMark as error:
            raise Refused(
                "bad-source-mark", "body.input", f"The text begins with a mark that is not whole: {error}."
            ) from None
        wishes = (*given, *marked.wishes)
        if len(wishes) > MOST:
            raise Refused("too-many-sources", "body.sources", f"{len(wishes)} sources, the limit is {MOST}.")
        for number, wish in enumerate(wishes):
            field = f"body.sources.{number}" if number < len(given) else "body.input"
            _check(wish, field, rules, [row["name"] for row in rows], {row["domain"] for row in rows})
        if marked.wishes:
            question = (TextPart(text=marked.question), *others) if marked.question else others
            last = content.messages[-1].model_copy(update={"content": question if others else marked.question})
            content = content.model_copy(update={"messages": (*content.messages[:-1], last)})
        return content.model_copy(update={"sources": wishes})


def _beginning(messages: Sequence[ChatMessage]) -> tuple[str, tuple[Part, ...]]:
    """The text that the last message begins with, where that is a user's, and the parts that follow it."""
    if not messages or messages[-1].role != "user":
        return "", ()
    match messages[-1].content:
        case str() as text:
            return text, ()
        case (TextPart(text=text), *others):
            return text, tuple(others)
    return "", ()


async def _named(session: TenantSession, wish: SourceWish, field: str) -> SourceWish:
    """With the names of the collections that it means. Raises Refused."""
    if isinstance(wish, ChoiceWish):
        among = [await _named(session, one, field) for one in wish.among]
        return wish.model_copy(update={"among": tuple(among)})
    if not isinstance(wish, CollectionWish):
        return wish
    row = await session.one("SELECT name FROM control.collections WHERE collection_id = :id", id=wish.collection_id)
    if row is None:
        raise Refused("unknown-collection", field, f"There is no collection {wish.collection_id}.")
    return wish.model_copy(update={"name": row["name"]})


def _check(wish: SourceWish, field: str, rules: FetchRules, names: Sequence[str], domains: set[str]) -> None:
    if isinstance(wish, UrlWish):
        try:
            check(rules, host_in(wish.url), of_site=False)
        except NotFetchable as error:
            raise Refused("source-refused", field, f"The source cannot be fetched: {error}.") from None
    for site in _sites(wish):
        if site.site.lower() not in names and site.site.lower() not in domains:
            there_are = ", ".join(names) or "none"
            raise Refused("unknown-site", field, f"There is no site {site.site!r}. There are: {there_are}.")


def _sites(wish: SourceWish) -> Iterator[SiteWish]:
    if isinstance(wish, SiteWish):
        yield wish
    elif isinstance(wish, ChoiceWish):
        yield from (one for one in wish.among if isinstance(one, SiteWish))
