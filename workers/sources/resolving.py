"""From what a prompt wishes for to what is put before its question, and what is told of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

from backplane.security.fetch_rules import NotFetchable, host_in
from backplane.settings import SourceSettings
from event_schemas.chat import ChatMessage, ResponseFormat
from event_schemas.sources import ChoiceWish, Source, SourceWish, UrlWish
from workers.inference.port import Finished, RequestRefused
from workers.sources import choosing, material
from workers.sources.port import Material, SourceReader, SourceUnavailable

logger = logging.getLogger(__name__)

Ask = Callable[[ChatMessage, ResponseFormat | None], Awaitable[tuple[str, Finished]]]
"""Asks the model that is to answer the prompt something else first. Raises BackendError."""


class Gathered(NamedTuple):
    messages: tuple[ChatMessage, ...]
    """Of the conversation, with what was found before its newest question."""
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    """For people: what was not had, and why."""
    asked: tuple[Finished, ...]
    """What it took to let the model pick."""


class _Had(NamedTuple):
    found: Sequence[Material] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """``readers`` by the kind of wish. ``characters``: most that go into one prompt. ``constrains``: the model can be
    held to a schema."""

    readers: Mapping[str, SourceReader]
    settings: SourceSettings
    characters: int
    constrains: bool

    async def resolve(
        self, wishes: Sequence[SourceWish], messages: Sequence[ChatMessage], tenant_id: UUID, ask: Ask
    ) -> Gathered:
        """Raises RequestRefused (``source_unavailable``), and what ``ask`` raises."""
        question = material.question_of(messages)
        picked = [await self._picked(wish, question, tenant_id, ask) for wish in wishes]
        chosen = [isinstance(wish, ChoiceWish) for wish in wishes]
        wanted = [(one, by_model) for (many, _, _), by_model in zip(picked, chosen, strict=True) for one in many]
        had = await self._all(wanted, question, tenant_id)
        found = [
            replace(one, chosen=by_model) for (_, by_model), has in zip(wanted, had, strict=True) for one in has.found
        ]
        texts = material.within(found, self.settings.characters, self.characters)
        notes = (*(note for _, note, _ in picked), *(one.note for one in had))
        return Gathered(
            material.put_before(messages, material.said_before(found, texts)) if found else tuple(messages),
            material.used(found, texts),
            tuple(note for note in notes if note is not None),
            tuple(finished for *_, finished in picked if finished is not None),
        )

    async def _all(self, wanted: Sequence[tuple[SourceWish, bool]], question: str, tenant_id: UUID) -> list[_Had]:
        reading = [
            asyncio.create_task(self._had(number, wish, question, tenant_id))
            for number, (wish, _) in enumerate(wanted, start=1)
        ]
        try:
            return list(await asyncio.gather(*reading))
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _had(self, number: int, wish: SourceWish, question: str, tenant_id: UUID) -> _Had:
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                return _Had(await self._reader(wish).read(tenant_id, wish, question))
        except SourceUnavailable as error:
            why = str(error)
        except TimeoutError:
            why = f"it could not be had within {self.settings.deadline_s:g} s"
        why = f"source {number}{_host(wish)} is not to be had: {why}"
        if not wish.optional:
            raise RequestRefused("source_unavailable", why)
        return _Had(note=why)

    async def _picked(
        self, wish: SourceWish, question: str, tenant_id: UUID, ask: Ask
    ) -> tuple[Sequence[SourceWish], str | None, Finished | None]:
        """What is to be read for ``wish``, why nothing is, and what the model used to say so."""
        if not isinstance(wish, ChoiceWish):
            return [wish], None, None
        there_is: list[tuple[SourceWish, tuple[str, str]]] = []
        for one in wish.among:
            try:
                there_is.append((one, await self._reader(one).describe(tenant_id, one)))
            except SourceUnavailable as error:
                if not wish.optional:
                    raise RequestRefused("source_unavailable", f"a source to pick is not to be had: {error}") from None
        if not there_is:
            return [], "there was no source to pick", None
        described = [what for _, what in there_is]
        names = [name for name, _ in described]
        wanted = choosing.answer_format(names, wish.most) if self.constrains else None
        said, finished = await ask(choosing.asked(question, described, wish.most), wanted)
        try:
            numbers = choosing.picked(said, names, wish.most)
        except choosing.NoChoice as error:
            logger.info("no choice of sources", extra={"action": "no_choice_of_sources", "cause": str(error)})
            return [], f"the model was to pick sources, and picked none: {error}", finished
        # What it picked by itself is no reason to fail.
        return [there_is[number][0].model_copy(update={"optional": True}) for number in numbers], None, finished

    def _reader(self, wish: SourceWish) -> SourceReader:
        reader = self.readers.get(wish.kind)
        if reader is None:
            raise SourceUnavailable(f"this worker reads no source of the kind {wish.kind!r}")
        return reader


def _host(wish: SourceWish) -> str:
    """Nothing else of a URL is told."""
    if not isinstance(wish, UrlWish):
        return ""
    try:
        return f" ({host_in(wish.url)})"
    except NotFetchable:
        return ""
