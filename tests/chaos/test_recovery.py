"""The scenarios of docs/how-to/recovery.md, from a lost server to a Parley that keeps its promises again."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.backup import dump, restore
from tests.chaos.world import in_mid_answer, works
from tests.conftest import PostgresServer, ValkeyServer, start_postgres, start_valkey
from tests.e2e.client import Answer, Client, Json
from tests.e2e.running import Up
from tests.pulsar_broker import PulsarBroker, pulsar_broker

pytestmark = pytest.mark.timeout(400)

TOKENS = [f"word{place} " for place in range(60)]
SLOW = {"tokens": TOKENS, "delay_s": 0.1}
DATABASE = "parley"
ON_PULSAR = pytest.mark.parametrize("house", [pytest.param("pulsar", marks=pytest.mark.pulsar)], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("house", ["postgres"], indirect=True)
ON_BOTH = pytest.mark.parametrize(
    "house", ["postgres", pytest.param("pulsar", marks=pytest.mark.pulsar)], indirect=True
)


@dataclass
class House:
    up: Up
    postgres: PostgresServer
    valkey: ValkeyServer
    broker: PulsarBroker | None

    async def start(self) -> None:
        self.up.start()
        await asyncio.to_thread(self.up.ready)

    async def stop(self) -> None:
        assert await asyncio.to_thread(self.up.stop) == 0

    async def parley(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.up.parley, *arguments)

    async def empty_redis(self) -> None:
        await asyncio.to_thread(self.valkey.server.stop)
        await asyncio.to_thread(self.valkey.server.start)

    async def lose_bus(self) -> None:
        """All that it held, its topics and subscriptions too."""
        if self.broker is None:
            owner = await asyncpg.connect(self.postgres.owner_url(DATABASE))
            rows = await owner.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'bus' AND tablename !~ '_[0-9]'"
            )
            await owner.execute(f"TRUNCATE {', '.join('bus.' + row[0] for row in rows)}")
            await owner.close()
        else:
            await asyncio.to_thread(self.broker.kill)
            for kept in ("metadata", "bookkeeper"):
                shutil.rmtree(self.broker.folder / kept)
            await asyncio.to_thread(self.broker.start)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client(self.up.url, self.up.admin_key) as opened:
            yield opened

    async def written_long_ago(self, conversation_id: str) -> None:
        """As if it had been begun an hour before anything else here."""
        owner = await asyncpg.connect(self.postgres.owner_url(DATABASE))
        status = await owner.execute(
            "UPDATE control.data_keys SET created_at = created_at - interval '1 hour' WHERE conversation_id = $1",
            conversation_id,
        )
        assert status == "UPDATE 1"
        await owner.close()

    async def whole(self) -> None:
        """The chain of the record verifies, and read models equal it."""
        said = await self.parley("rebuild", "all", "--check")
        assert "DIFFERS" not in said
        assert "event_log: equals" in said


@pytest.fixture
def house(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[House]:
    folder = short_folder / f"recovery-{request.node.name.partition('[')[0][-30:]}-{request.param}"
    folder.mkdir()
    with ExitStack() as stack:
        postgres = start_postgres(folder / "servers")
        stack.callback(postgres.server.stop)
        valkey = start_valkey(folder / "servers")
        stack.callback(valkey.server.stop)
        broker = stack.enter_context(pulsar_broker(folder / "pulsar")) if request.param == "pulsar" else None
        asyncio.run(_create(postgres))
        up = Up(
            folder,
            PARLEY_POSTGRES__URL=postgres.owner_url(DATABASE),
            PARLEY_REDIS__URL=valkey.url,
            PARLEY_POOLS=json.dumps({"local": {"backend": "scripted", "models": ["script"], "slots": 1}}),
            **({} if broker is None else broker.environment),
        )
        stack.callback(up.end)
        up.start()
        up.ready()
        yield House(up, postgres, valkey, broker)


async def _create(postgres: PostgresServer) -> None:
    owner = await asyncpg.connect(postgres.owner_url())
    await owner.execute(f"CREATE DATABASE {DATABASE}")
    await owner.close()


async def completed(client: Client, text: str, **body: object) -> Json:
    accepted = await client.submit(text, **body)
    ended = await client.ended(accepted["generation_id"])
    assert ended["status"] == "completed"
    return ended


async def begun(client: Client) -> Json:
    """A prompt that is being answered."""
    accepted = await client.submit("talk", script=SLOW)
    answer = Answer()
    following = asyncio.create_task(client.follow(accepted["generation_id"], answer))
    await in_mid_answer(answer)
    following.cancel()
    await asyncio.wait([following])
    return accepted


@ON_PULSAR
async def test_postgres_is_restored_to_before_the_newest_events_and_pulsar_has_them(
    house: House, tmp_path: Path
) -> None:
    async with house.client() as client:
        old = await completed(client, "before")
        private = await completed(client, "to be erased")
        await house.written_long_ago(private["conversation_id"])
        running = await begun(client)
        await dump(house.postgres, DATABASE, tmp_path / "backup")
        assert (await client.ended(running["generation_id"]))["status"] == "completed"
        later = await completed(client, "after", conversation_id=old["conversation_id"])
        erased = await client.http.post(f"/v1/conversations/{private['conversation_id']}/erase")
        assert erased.status_code == 204
        elsewhere = await completed(client, "in a conversation that the backup does not know")
        key = (await house.parley("key", "issue")).strip()
    await house.stop()
    await restore(house.postgres, DATABASE, tmp_path / "backup")
    await house.empty_redis()
    await house.start()
    said = await house.parley("recover")
    assert "claims that the record says have ended: 3 closed" in said
    assert "data keys that were erased once: 1 deleted again" in said
    assert "prompts that have not ended: 0 published again" in said
    await house.whole()
    assert (await house.parley("record", "compare")).startswith("equal: ")
    async with house.client() as client:
        for known in (old, later):
            assert (await client.generation(known["id"]))["content"] == known["content"]
        ended = await client.generation(running["generation_id"])
        assert (ended["status"], ended["attempt"], ended["content"]) == ("completed", 1, "".join(TOKENS))
        # It was running when the backup was made, and its conversation goes on.
        await completed(client, "and now?", conversation_id=running["conversation_id"])
        gone = await client.generation(private["id"])
        assert (gone["content"], gone["erased"]) == (None, True)
        # What is lost: the data keys of conversations that are younger than the backup, and what was decided since.
        lost = await client.generation(elsewhere["id"])
        assert (lost["status"], lost["content"], lost["erased"]) == ("completed", None, True)
        async with Client(house.up.url, key) as stranger:
            assert (await stranger.http.get("/v1/conversations")).status_code == 401
        await works(client)


@ON_POSTGRES
async def test_postgres_is_restored_together_with_the_bus_in_it(house: House, tmp_path: Path) -> None:
    async with house.client() as client:
        old = await completed(client, "before")
        running = await begun(client)
        await dump(house.postgres, DATABASE, tmp_path / "backup")
        assert (await client.ended(running["generation_id"]))["status"] == "completed"
        later = await completed(client, "after", conversation_id=old["conversation_id"])
    await house.stop()
    await restore(house.postgres, DATABASE, tmp_path / "backup")
    await house.empty_redis()
    await house.start()
    async with house.client() as client:
        assert (await client.generation(old["id"]))["content"] == old["content"]
        # It ran when the backup was made: it is lost as an attempt, and is made again.
        ended = await client.ended(running["generation_id"])
        assert (ended["status"], ended["attempt"], ended["content"]) == ("completed", 2, "".join(TOKENS))
        # As if it had never been asked: nothing outside this database knows of it.
        assert (await client.http.get(f"/v1/generations/{later['id']}")).status_code == 404
        await completed(client, "again", conversation_id=old["conversation_id"])
    await house.parley("recover")
    await house.whole()


@ON_BOTH
async def test_the_bus_is_lost_and_what_was_accepted_goes_on(house: House) -> None:
    async with house.client() as client:
        running = await begun(client)
        waiting = [await client.submit(f"in the queue, {number}") for number in range(3)]
        for each in waiting:
            assert (await client.generation(each["generation_id"]))["status"] == "queued"
    await asyncio.to_thread(house.up.kill_everything)
    await house.lose_bus()
    await house.start()
    async with house.client() as client:
        assert "prompts that have not ended: 4 published again" in await house.parley("recover")
        ended = await client.ended(running["generation_id"])
        assert (ended["status"], ended["attempt"], ended["content"]) == ("completed", 2, "".join(TOKENS))
        for each in waiting:
            ended = await client.ended(each["generation_id"])
            assert (ended["status"], ended["attempt"]) == ("completed", 1)
        # Once more is no harm: what has ended stays as it ended.
        assert "prompts that have not ended: 0 published again" in await house.parley("recover")
        await works(client)
        for each in (running, *waiting):
            ends = await client.events(subject=f"generation:{each['generation_id']}", type="generation.completed.v3")
            assert len(ends) == 1
    await house.whole()
