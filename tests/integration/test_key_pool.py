"""Three workers, four keys, and a provider that fails in every way: nothing is lost, overasked or billed twice."""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from uuid import UUID

import pytest

from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.ports.bus import Mode
from backplane.ports.identifiers import new_id
from backplane.settings.pools import PoolSettings
from event_schemas import topics
from event_schemas.chat import ChatMessage
from event_schemas.codec import decode
from event_schemas.generation import (
    AttemptLost,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    Parameters,
    PromptContent,
    SubmitPrompt,
)
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.prompts import POOL, written
from tests.integration.worker_world import WorkerWorld
from tests.providers.script import Script
from tests.providers.server import providers
from workers.inference.openai_chat import OpenAIBackend
from workers.keys import Keys, ProviderKey
from workers.upstream import Upstream

PROMPTS = 2000
KEYS = ("one", "two", "three", "four")
PER_MINUTE = 600
WINDOW_S = 6.0
"""What limits call a minute, shortened tenfold, so that the run sees many."""
MIX = {"429": 0.03, "500": 0.03, "cut": 0.03, "hang": 0.01, "stall": 0.01, "cut_early": 0.01}


def prompt(words: int) -> SubmitPrompt:
    """Its length in characters is four times that in words, so that an estimate meets what the provider counts."""
    return SubmitPrompt(
        generation_id=new_id(),
        conversation_id=new_id(),
        parent_message_id=None,
        input_message_ids=(new_id(),),
        roles=("user",),
        input_tokens=words,
        user_id=None,
        key_id=new_id(),
        model="gpt-4o-mini",
        pool=POOL,
        parameters=Parameters(),
        content=written(PromptContent(messages=(ChatMessage(role="user", content=" ".join(["abc"] * words)),))),
    )


@pytest.mark.timeout(300)
async def test_every_prompt_ends_once_and_every_key_keeps_its_limit(
    database: TestDatabase, valkey_server: ValkeyServer
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    limit = round(PER_MINUTE * WINDOW_S / 60)
    settings = PoolSettings.model_validate(
        {
            "backend": "openai",
            "models": ["gpt-4o-mini"],
            "requests_per_minute": limit,
            # Long enough that on a busy machine nothing the provider has finished is given up.
            "first_token_s": 8.0,
            "gap_s": 8.0,
        }
    )
    ring = secrets.token_hex(4)
    async with (
        providers(default=Script(words=5), mix=MIX, seed=seed, window_s=WINDOW_S) as server,
        WorkerWorld(database, valkey_server.url) as world,
    ):
        closing = []
        for key in KEYS:
            server.add_key(key, requests_per_minute=limit)
        for number in range(3):
            backend = OpenAIBackend(server.openai_url, slots=64)
            await backend.start(lambda doing, share: None)
            room = RedisKeyRoom(valkey_server.url, window_s=WINDOW_S)
            closing += [backend.close, room.close]
            keys = Keys(ring, settings, [ProviderKey.of(key) for key in KEYS], room)
            await world.worker(
                f"w{number}", slots=64, upstream=Upstream(backend, settings, keys), max_attempts=20, emit_every_s=1.0
            )
        events = await world.bus.subscribe([topics.EVENTS], "test", Mode.FAILOVER, prefetch=256)
        chance = random.Random(seed)
        wanted = {one.generation_id: one for one in (prompt(chance.randint(1, 30)) for _ in range(PROMPTS))}
        began = time.monotonic()
        for one in wanted.values():
            await world.submit(one)

        ended: dict[UUID, set[UUID]] = defaultdict(set)
        how: Counter[str] = Counter()
        used: dict[tuple[UUID, int], tuple[int, int, str]] = {}
        while len(ended) < PROMPTS:
            for message in await events.receive(limit=256):
                event = decode(message.payload)
                match event.data:
                    case (GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as end:
                        if event.id not in ended[end.generation_id]:
                            how[event.type] += 1
                        ended[end.generation_id].add(event.id)
                        used[end.generation_id, end.attempt] = _counted(end)
                    case AttemptLost() as lost:
                        used[lost.generation_id, lost.attempt] = _counted(lost)
                await events.ack(message)
        took = time.monotonic() - began
        await events.close()
        outbox = await world.owner.fetch("SELECT envelope FROM control.outbox")
        for row in outbox:
            event = decode(row["envelope"])
            if isinstance(event.data, AttemptLost):
                used[event.data.generation_id, event.data.attempt] = _counted(event.data)
        for close in closing:
            await close()

        assert set(ended) == set(wanted)
        assert {len(ids) for ids in ended.values()} == {1}
        assert how == {"generation.completed.v3": PROMPTS}
        accounts = [server.ledger[key] for key in KEYS]
        assert [account.over_limit for account in accounts] == [0] * len(KEYS)
        assert sum(input_tokens for input_tokens, _, _ in used.values()) == sum(one.input_tokens for one in accounts)
        sources = Counter(source for _, _, source in used.values())
        finished = [entry for account in accounts for entry in account.with_outcome("finished")]
        assert sources["provider"] == len(finished) == PROMPTS
        assert _output(used, "provider") == sum(entry.output_tokens for entry in finished)
        # A connection that breaks may take along what was not read yet; the provider bills it all the same.
        billed = sum(one.output_tokens for one in accounts)
        assert _output(used, "estimated") <= billed - _output(used, "provider")
        asked = sum(len(account.asked) for account in accounts)
        share = asked / took * 60 / (PER_MINUTE * len(KEYS))
        print(f"{asked} requests in {took:.1f} s, {share:.0%} of what the keys allow; {dict(sources)}")


def _counted(told: GenerationCompleted | GenerationFailed | GenerationCancelled | AttemptLost) -> tuple[int, int, str]:
    return told.usage.input_tokens, told.usage.output_tokens, told.usage.source


def _output(used: Mapping[tuple[UUID, int], tuple[int, int, str]], wanted: str) -> int:
    return sum(output_tokens for _, output_tokens, source in used.values() if source == wanted)
