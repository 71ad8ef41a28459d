"""Once the kills are over: wait until everything is settled, then look for whatever contradicts what was promised."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from backplane.ports.bus import Bus
from backplane.ports.database import Database
from backplane.ports.dead_letters import OPERATORS
from backplane.ports.freshness import caught_up
from backplane.wiring.embedded import owner_database
from backplane.wiring.operations import operator_bus, shadow_tables, topics
from event_schemas.topics import EVENTS, WORKERS, dead_letters
from projections.catalog import MODELS
from projections.rebuild import rebuild
from tests.chaos.house import House
from tests.chaos.talkers import Talk
from tests.chaos.truth import Truth
from tests.e2e.client import Answer, Client, eventually

_SETTLES_S = 120.0
_MOST_STORIES = 3
_ASKED_AGAIN = 10
"""So many answers of each tenant are read once more, through the query API."""


async def faults(house: House, talks: Sequence[Talk]) -> list[str]:
    """What is wrong, each as a text for people."""
    owner = owner_database(house.settings, connections=4)
    try:
        async with operator_bus(house.settings) as bus:
            found = [fault async for fault in _of_the_bus(house, owner, bus)]
        at_rest = not found
        truth = await Truth.of(house, owner)
        found.extend(_of_talks(truth, house, talks))
        if at_rest:
            found.extend([fault async for fault in _of_read_models(house, owner)])
        if not found:
            found.extend([fault async for fault in _of_the_api(house, truth, talks)])
    finally:
        await owner.close()
    return found


async def _of_the_bus(house: House, owner: Database, bus: Bus) -> AsyncIterator[str]:
    try:
        await _settle(house, owner, bus)
    except AssertionError as error:
        yield f"it does not come to rest: {error}"
    for topic in topics(house.settings):
        if letters := sum(await bus.backlog(dead_letters(topic), OPERATORS)):
            yield f"{letters} dead letters of {topic}"


async def _settle(house: House, owner: Database, bus: Bus) -> None:
    """Return once nothing is on its way any more: no command, no event of an outbox, nothing to be projected."""

    async def works() -> bool:
        return house.works

    await eventually(works, bool, within=_SETTLES_S)
    live = topics(house.settings)

    async def on_their_way() -> dict[str, int]:
        waiting = {topic: sum(await bus.backlog(topic, WORKERS)) for topic in live if topic != EVENTS}
        async with owner.system() as session:
            (row,) = await session.all(
                "SELECT (SELECT count(*) FROM control.outbox) AS outbox,"
                " (SELECT count(*) FROM work.claims WHERE terminal IS NULL) AS open_claims"
            )
        return {what: count for what, count in {**waiting, **row}.items() if count}

    await eventually(on_their_way, lambda waiting: not waiting, within=_SETTLES_S)
    assert await caught_up(bus, owner, live, _SETTLES_S), "the projections do not catch up"


def _of_talks(truth: Truth, house: House, talks: Sequence[Talk]) -> Iterator[str]:
    told = 0
    for talk in talks:
        if not (wrong := truth.faults(talk)):
            continue
        told += 1
        named = f"generation {talk.accepted['generation_id']}" if talk.accepted else "a prompt"
        yield f"{named}: {'; '.join(wrong)}"
        if told <= _MOST_STORIES:
            yield truth.story(talk, house.killed)
    prompts = {
        generation_id
        for generation_id, lines in truth.record.items()
        if any(line.type == "prompt.submit.v3" for line in lines)
    }
    if surplus := prompts - {str(talk.accepted.get("generation_id")) for talk in talks}:
        yield f"the record has prompts that nobody was promised an answer to: {sorted(surplus)}"


async def _of_read_models(house: House, owner: Database) -> AsyncIterator[str]:
    """Rebuilt ones equal the live ones, and the record's chain of hashes holds."""
    for model in MODELS:
        report = await rebuild(owner, shadow_tables(house.settings), model, check=True, progress=lambda share: None)
        for difference in report.differences:
            yield f"live is not what the record says: {difference}"


async def _of_the_api(house: House, truth: Truth, talks: Sequence[Talk]) -> AsyncIterator[str]:
    for tenant in house.tenants:
        own = [talk for talk in talks if talk.tenant == tenant and talk.broken is None]
        used = [row for talk in own for row in truth.usage[talk.generation_id].values()]
        expected = {
            "generations": len({row["generation_id"] for row in used}),
            "attempts": len(used),
            "input_tokens": sum(row["input_tokens"] for row in used),
            "output_tokens": sum(row["output_tokens"] for row in used),
            "estimated_attempts": sum(row["source"] == "estimated" for row in used),
        }
        async with Client(house.queries_url, tenant.key) as client:
            (group,) = (await client.get("/v1/usage", group_by="model"))["groups"]
            if {name: group[name] for name in expected} != expected:
                yield f"/v1/usage of tenant {tenant.id} says {group}, its attempts add up to {expected}"
            for talk in own[-_ASKED_AGAIN:]:
                again = await client.follow(talk.generation_id, Answer())
                shown = await client.generation(talk.generation_id)
                if not again.text == shown["content"] == talk.answer.text:
                    yield (
                        f"generation {talk.generation_id}: streamed again it is {again.text!r}, shown is "
                        f"{shown['content']!r}, its client had {talk.answer.text!r}"
                    )


def bugs_in(logs: Path) -> list[str]:
    """What services logged that no kill explains, and how often.

    One that is started while its servers are away ends with an error, and is started again.
    """
    found: Counter[str] = Counter()
    for log in sorted(logs.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                if line.startswith("Traceback"):
                    found[f"{log.name}: a traceback"] += 1
                continue
            if not isinstance(said, dict) or said.get("action") == "service_failed":
                continue
            if said.get("level") in ("ERROR", "CRITICAL"):
                message, *more = str(said["message"]).splitlines()
                cause = str(said.get("trace") or said.get("cause") or "").strip().splitlines() or more
                found[f"{log.name}: {message} ({cause[-1] if cause else 'no cause'})"] += 1
    return [f"{what}, {count} times" for what, count in found.items()]
