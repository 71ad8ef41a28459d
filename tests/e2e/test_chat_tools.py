"""Slack, Discord and Teams at a whole Parley: proved, answered where it was asked, and whole after a crash."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiohttp import web

from backplane.ports.identifiers import new_id
from tests.chat_platforms import (
    BOT_TOKEN,
    CHANNEL,
    DISCORD_BOT_TOKEN,
    NOWHERE,
    ChatPlatforms,
    Discord,
    Signed,
    Slack,
    Teams,
    chat_platforms,
    too_many,
)
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up, free_port
from tests.providers.script import Script
from tests.providers.server import Providers, providers

pytestmark = pytest.mark.timeout(180)

SLACK, DISCORD, TEAMS = Slack(), Discord(), Teams()
STILL = "Mention me with **more** for what follows."
WORDS = "One sentence after the other, each of them about the blue sky and its light. "


@dataclass(frozen=True)
class Ports:
    platforms: int
    provider: int


@pytest.fixture(scope="module")
def ports() -> Ports:
    return Ports(free_port(), free_port())


@pytest.fixture(scope="module")
def parley(short_folder: Path, ports: Ports) -> Iterator[Up]:
    pool = {
        "backend": "openai",
        "base_url": f"http://127.0.0.1:{ports.provider}/v1",
        "models": [{"fast": "gpt-4o-mini"}],
        "keys": ["sk-good"],
    }
    up = Up(
        short_folder / "chat",
        PARLEY_POOLS=json.dumps({"cloud": pool}),
        PARLEY_WEBHOOKS__ALLOW_PRIVATE="true",
        PARLEY_DOORS__SLACK_URL=f"http://127.0.0.1:{ports.platforms}/slack",
        PARLEY_DOORS__DISCORD_URL=f"http://127.0.0.1:{ports.platforms}/discord",
    )
    with up.serving():
        yield up


@dataclass
class World:
    up: Up
    there: ChatPlatforms
    provider: Providers
    admin: Client
    added: list[tuple[str, str]] = field(default_factory=list)

    async def add(self, tool: Slack | Discord | Teams, client: Client | None = None, **body: Any) -> str:
        """The path of a new chat tool."""
        asked = {"kind": tool.kind, "name": "Help desk", **tool.secrets, **body}
        answer = await (client or self.admin).http.post("/v1/chat-tools", json=asked)
        assert answer.status_code == 201, answer.text
        self.added.append(((client or self.admin).key, answer.json()["id"]))
        path: str = answer.json()["path"]
        return path

    async def leave(self) -> None:
        """Nothing that is still to be told comes to who has these ports next."""
        async with httpx.AsyncClient(base_url=self.up.url, trust_env=False, timeout=20) as http:
            for key, tool_id in self.added:
                headers = {"Authorization": f"Bearer {key}"}
                left = await http.delete(f"/v1/chat-tools/{tool_id}", headers=headers)
                assert left.status_code in (204, 401, 404), left.text

    async def send(self, path: str, request: Signed) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.up.url, trust_env=False, timeout=20) as http:
            return await http.post(path, content=request.body, headers=request.headers)

    async def taken(self, path: str, request: Signed) -> Json:
        answer = await self.send(path, request)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else {}

    async def whole(self, path: str, request: Signed) -> str:
        """What Teams is told, and what it has by asking for more while there is no end of it."""
        told: str = (await self.taken(path, request))["text"]
        while told.endswith(STILL):
            told = (await self.taken(path, TEAMS.message("more")))["text"]
        return told

    def texts(self) -> list[str]:
        return list(self.there.messages.values())

    async def shown(self, *texts: str) -> None:
        """Once these stand there, and nothing else."""
        await self.there.until(lambda: self.texts() == [*texts])

    @property
    def prompts(self) -> list[list[Json]]:
        """Messages of each request that the model was asked."""
        return [entry.body["messages"] for entry in self.provider.ledger["sk-good"].asked]

    async def generations(self) -> int:
        return sum(one["type"].startswith("prompt.submit.") for one in await self.admin.events())


@pytest.fixture
async def world(parley: Up, ports: Ports) -> AsyncIterator[World]:
    async with (
        chat_platforms(ports.platforms) as there,
        providers(port=ports.provider) as provider,
        AsyncExitStack() as open_clients,
    ):
        provider.add_key("sk-good")
        made = World(parley, there, provider, await Callers(parley, open_clients).admin())
        yield made
        await made.leave()


async def test_a_mention_in_slack_is_answered_in_its_thread_as_the_answer_grows(world: World) -> None:
    path = await world.add(SLACK)
    text = (WORDS * 4).strip()
    world.provider.queue(Script(text=text, token_s=0.08))
    asked = SLACK.event("Why is the sky &lt;blue&gt; &amp; wide?")
    assert await world.taken(path, asked) == {}
    await world.shown(text)
    (answer,) = world.there.messages
    assert world.there.threads[answer] == json.loads(asked.body)["event"]["ts"]
    (said,) = world.prompts
    assert [one["content"] for one in said] == ["Why is the sky <blue> & wide?"]
    first, *edits = world.there.calls
    assert (first.what, first.text) == ("chat.postMessage", "…")
    assert {(one.what, one.message) for one in edits} == {("chat.update", answer)}
    grown = [one.text.removesuffix(" …") for one in edits]
    assert len(grown) > 1
    assert all(text.startswith(part) for part in grown)
    assert [len(part) for part in grown] == sorted(len(part) for part in grown)
    assert len({one.text for one in edits}) == len(edits)
    world.there.was_spared()


async def test_a_thread_is_one_conversation_and_another_thread_another(world: World) -> None:
    path = await world.add(SLACK)
    first = SLACK.event("My name is Ada.")
    thread = json.loads(first.body)["event"]["ts"]
    for number, request in enumerate(
        (first, SLACK.event("What is my name?", thread=thread), SLACK.event("And what is my name here?")), 1
    ):
        world.provider.queue(Script(text=f"Answer {number}."))
        await world.taken(path, request)
        await world.shown(*(f"Answer {one}." for one in range(1, number + 1)))
    assert [[one["content"] for one in said] for said in world.prompts] == [
        ["My name is Ada."],
        ["My name is Ada.", "Answer 1.", "What is my name?"],
        ["And what is my name here?"],
    ]
    assert set(list(world.there.threads.values())[:2]) == {thread}
    assert len((await world.admin.get("/v1/conversations"))["conversations"]) == 2


async def test_what_comes_again_is_asked_once(world: World) -> None:
    path = await world.add(SLACK)
    world.provider.queue(Script(text="Once."))
    asked = SLACK.event("Why?")
    answers = await asyncio.gather(*(world.send(path, asked) for _ in range(4)))
    assert {one.status_code for one in answers} == {200}
    await world.shown("Once.")
    await world.taken(path, asked)
    # What is asked after it is answered after it.
    world.provider.queue(Script(text="Next."))
    await world.taken(path, SLACK.event("And?"))
    await world.shown("Once.", "Next.")
    assert await eventually(world.generations, lambda found: found >= 2) == 2


async def test_two_questions_at_once_in_one_thread_are_one_conversation(world: World) -> None:
    path = await world.add(SLACK)
    world.provider.default = Script(text="Yes.", token_s=0.05)
    await asyncio.gather(*(world.taken(path, SLACK.event(f"{n}?", thread="1515449522.000001")) for n in range(3)))
    await world.shown("Yes.", "Yes.", "Yes.")
    assert sorted(len(said) for said in world.prompts) == [1, 3, 5]


async def test_a_slash_command_is_posted_and_answered_in_the_thread_that_it_begins(world: World) -> None:
    path = await world.add(SLACK)
    world.provider.queue(Script(text="It scatters."))
    assert await world.taken(path, SLACK.command("Why is the sky blue?")) == {}
    await world.shown("@ada: Why is the sky blue?", "It scatters.")
    root, answer = world.there.messages
    assert (world.there.threads[root], world.there.threads[answer]) == ("", root)
    world.provider.queue(Script(text="Less."))
    await world.taken(path, SLACK.event("And at dusk?", thread=root))
    await world.shown("@ada: Why is the sky blue?", "It scatters.", "Less.")
    assert [one["content"] for one in world.prompts[-1]] == ["Why is the sky blue?", "It scatters.", "And at dusk?"]
    told = await world.taken(path, SLACK.command(" "))
    assert (told["response_type"], "Ask something" in told["text"]) == ("ephemeral", True)


async def test_slack_finds_out_whose_address_it_is(world: World) -> None:
    path = await world.add(SLACK)
    payload = {"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "3eZbrw1aBm2r", "type": "url_verification"}
    assert await world.taken(path, SLACK.signed(json.dumps(payload).encode())) == {"challenge": "3eZbrw1aBm2r"}


async def test_what_the_app_itself_said_is_no_question(world: World) -> None:
    path = await world.add(SLACK)
    for ignored in (
        SLACK.event("An answer.", bot_id="B0LAN0Z89"),
        SLACK.event("An edit.", subtype="message_changed"),
        SLACK.event("Somebody to somebody.", type="message", channel_type="channel"),
        SLACK.event(""),
        SLACK.signed(b'{"type":"app_rate_limited"}'),
    ):
        assert await world.taken(path, ignored) == {}
    world.provider.queue(Script(text="Yes."))
    await world.taken(path, SLACK.event("A direct one?", type="message", channel_type="im"))
    await world.shown("Yes.")
    assert await eventually(world.generations, bool) == 1


async def test_a_long_answer_stands_in_several_messages(world: World) -> None:
    path = await world.add(SLACK)
    text = "\n\n".join(f"Paragraph {n} & more. {WORDS * 5}".strip() for n in range(25))
    world.provider.queue(Script(text=text))
    await world.taken(path, SLACK.event("Tell me all."))
    await world.there.until(lambda: "\n\n".join(world.texts()) == text.replace("&", "&amp;"))
    assert len(world.texts()) > 2
    assert set(world.there.threads.values()) == {world.there.threads[next(iter(world.there.messages))]}


async def test_slack_is_left_alone_as_long_as_it_wants(world: World) -> None:
    path = await world.add(SLACK)
    world.provider.queue(Script(text="It scatters."))
    world.there.faults.append(too_many(3))
    await world.taken(path, SLACK.event("Why?"))
    await world.shown("It scatters.")
    refused, next_, *_ = world.there.calls
    assert next_.at - refused.at >= 3.0
    assert len(world.there.messages) == 1


async def test_what_fails_for_a_moment_is_tried_again(world: World) -> None:
    path = await world.add(SLACK)
    world.provider.queue(Script(text="It scatters."))
    world.there.faults += [web.Response(status=503), web.json_response({"ok": False, "error": "internal_error"})]
    await world.taken(path, SLACK.event("Why?"))
    await world.shown("It scatters.")
    (tool,) = (await world.admin.get("/v1/chat-tools"))["chat_tools"]
    assert tool["last_failure"] is None


async def test_an_answer_that_cannot_be_brought_is_shown_to_the_admin(world: World) -> None:
    path = await world.add(SLACK)
    await world.taken(path, SLACK.event("Why?", channel=NOWHERE))
    listed = await eventually(
        lambda: world.admin.get("/v1/chat-tools"), lambda found: found["chat_tools"][0]["last_failure"]
    )
    assert listed["chat_tools"][0]["last_failure"] == "Slack says to chat.postMessage: not_in_channel"
    assert BOT_TOKEN not in json.dumps(listed) + world.up.output


async def test_what_a_limit_refuses_is_told_where_it_was_asked(world: World, parley: Up) -> None:
    path = await world.add(SLACK)
    tenant = (await world.admin.get("/v1/session"))["tenant_id"]
    parley.parley("limits", "set", "--tenant", tenant, "--requests-per-minute", "1")
    world.provider.queue(Script(text="Once."))
    await world.taken(path, SLACK.event("Why?"))
    await world.shown("Once.")
    await world.taken(path, SLACK.event("And?"))
    await world.there.until(lambda: len(world.texts()) == 2 and world.texts()[1] != "…")
    assert "The limit of the tenant" in world.texts()[1]
    assert "requests a minute" in world.texts()[1]


async def test_who_may_not_ask_any_more_asks_by_no_chat_tool_either(world: World) -> None:
    async with AsyncExitStack() as open_clients:
        callers = Callers(world.up, open_clients)
        tenant = UUID((await world.admin.get("/v1/session"))["tenant_id"])
        other = await callers.caller(tenant, "admin", "grace")
        path = await world.add(SLACK, other)
        await callers.revoke(other.key)
    await world.taken(path, SLACK.event("Why?"))
    await world.there.until(lambda: bool(world.texts()) and world.texts()[0] != "…")
    assert world.texts()[0].startswith("Nobody may ask here at the moment")
    assert world.prompts == []


async def test_a_failed_answer_says_so(world: World) -> None:
    path = await world.add(SLACK)
    world.provider.queue(Script(fault="context"))
    await world.taken(path, SLACK.event("Why?"))
    await world.there.until(lambda: any("There is no whole answer: " in one for one in world.texts()))


async def test_a_conversation_that_was_deleted_begins_anew(world: World) -> None:
    path = await world.add(SLACK)
    first = SLACK.event("My name is Ada.")
    world.provider.queue(Script(text="Hello."), Script(text="No idea."))
    await world.taken(path, first)
    await world.shown("Hello.")
    listed = await eventually(lambda: world.admin.get("/v1/conversations"), lambda found: bool(found["conversations"]))
    (one,) = listed["conversations"]
    assert (await world.admin.http.delete(f"/v1/conversations/{one['id']}")).is_success
    await world.taken(path, SLACK.event("My name?", thread=json.loads(first.body)["event"]["ts"]))
    await world.shown("Hello.", "No idea.")
    assert [one["content"] for one in world.prompts[-1]] == ["My name?"]


@pytest.mark.parametrize("tool", [SLACK, DISCORD, TEAMS], ids=lambda tool: tool.kind)
async def test_what_is_not_signed_by_the_tool_just_now_is_refused_alike(world: World, tool: Any) -> None:
    path = await world.add(tool)

    def asked(of: Slack | Discord | Teams = tool, at: float | None = None) -> Signed:
        match of:
            case Slack():
                return of.event("Why?", at=at)
            case Discord():
                return of.signed({"type": 1}, at=at)
            case Teams():
                return of.message("Why?", at=at)

    good = asked()
    stranger: Any = {
        "slack": Slack("another-signing-secret"),
        "discord": Discord(),
        "teams": Teams("YW5vdGhlciBzZWN1cml0eSB0b2tlbg=="),
    }[tool.kind]
    elsewhere = f"/chat-tools/{new_id()}/{tool.kind}"
    other_kind = path.replace(tool.kind, "slack" if tool.kind != "slack" else "discord")
    refused = [
        await world.send(path, asked(stranger)),
        await world.send(path, asked(at=time.time() - 400)),
        await world.send(path, asked(at=time.time() + 400)),
        await world.send(path, Signed(good.body + b" ", good.headers)),
        await world.send(path, Signed(good.body, {"Content-Type": "application/json"})),
        await world.send(elsewhere, good),
        await world.send(other_kind, good),
    ]
    assert {one.status_code for one in refused} == {401}
    assert len({one.json()["detail"] for one in refused}) == 1
    assert (await world.send(path, good)).status_code == 200


async def test_discord_finds_out_whose_address_it_is(world: World) -> None:
    path = await world.add(DISCORD)
    assert await world.taken(path, DISCORD.signed({"type": 1, "application_id": "1"})) == {"type": 1}


async def test_a_command_in_discord_is_promised_and_then_answered_as_the_answer_grows(world: World) -> None:
    path = await world.add(DISCORD)
    world.there.tokens |= {"first", "second"}
    text = (WORDS * 40).strip()
    world.provider.queue(Script(text=text, token_s=0.004), Script(text="Less."))
    assert await world.taken(path, DISCORD.command("Why is the sky blue?", "first")) == {"type": 5}
    await world.there.until(lambda: " ".join(world.texts()) == text)
    assert next(iter(world.there.messages)) == "first/@original"
    assert len(world.texts()) == 2
    world.there.was_spared()
    await world.taken(path, DISCORD.command("And at dusk?", "second"))
    await world.there.until(lambda: world.there.messages.get("second/@original") == "Less.")
    assert [one["content"] for one in world.prompts[-1]] == ["Why is the sky blue?", text, "And at dusk?"]


async def test_discord_is_told_what_is_not_done(world: World) -> None:
    path = await world.add(DISCORD)
    for payload in ({"type": 3, "data": {"custom_id": "b", "component_type": 2}}, {"type": 2, "data": {"type": 3}}):
        told = await world.taken(path, DISCORD.signed({"id": "1", "token": "t"} | payload))
        assert (told["type"], told["data"]["flags"]) == (4, 64)
        assert told["data"]["content"].startswith("Only slash commands")
    told = await world.taken(path, DISCORD.command(None, "t"))
    assert told["data"]["content"].startswith("Ask something")


async def test_after_its_token_has_ended_the_bot_posts_by_itself(world: World) -> None:
    path = await world.add(DISCORD, bot_token=DISCORD_BOT_TOKEN)
    world.provider.queue(Script(text="It scatters."))
    await world.taken(path, DISCORD.command("Why?", "ended", channel="4711"))
    await world.shown("It scatters.")
    assert next(iter(world.there.messages)).startswith("4711/")
    silent = await world.add(DISCORD)
    await world.taken(silent, DISCORD.command("Why?", "ended", channel="4712"))
    listed = await eventually(
        lambda: world.admin.get("/v1/chat-tools"), lambda found: found["chat_tools"][0]["last_failure"]
    )
    assert listed["chat_tools"][0]["last_failure"] == "Discord answered 401 Invalid Webhook Token"


async def test_teams_is_answered_at_once(world: World) -> None:
    path = await world.add(TEAMS)
    world.provider.queue(Script(text="It scatters."), Script(text="Less."))
    assert await world.whole(path, TEAMS.message("Why is the sky &lt;blue&gt;?")) == "It scatters."
    assert [one["content"] for one in world.prompts[0]] == ["Why is the sky <blue>?"]
    again = TEAMS.message("And at dusk?")
    assert await world.whole(path, again) == "Less."
    assert await world.taken(path, again) == {"type": "message", "text": "Less."}
    assert len(world.prompts) == 2
    assert len(world.prompts[1]) == 3


async def test_what_teams_does_not_wait_for_is_had_by_asking_for_more(world: World) -> None:
    path = await world.add(TEAMS)
    assert "no answer here" in (await world.taken(path, TEAMS.message("more")))["text"]
    text = "\n\n".join(f"Paragraph {n}. {WORDS * 5}".strip() for n in range(40))
    world.provider.queue(Script(text=text, first_token_s=6.0))
    told = (await world.taken(path, TEAMS.message("Tell me all.")))["text"]
    assert told.startswith(("…", "I have yet to begin."))
    assert told.endswith(STILL)
    found = []
    while (told := (await world.taken(path, TEAMS.message("More!")))["text"]) != "That was all.":
        found.append(told.removesuffix(STILL).rstrip())
    whole = [one for one in found if not one.endswith(("…", "I have yet to begin."))]
    assert len(whole) > 1
    assert "\n\n".join(whole) == text


async def test_the_token_of_teams_can_be_set_once_it_is_known(world: World) -> None:
    answer = await world.admin.http.post("/v1/chat-tools", json={"kind": "teams", "name": "Help desk"})
    path, url = answer.json()["path"], f"/v1/chat-tools/{answer.json()['id']}/secrets"
    assert (await world.send(path, TEAMS.message("Why?"))).status_code == 401
    assert (await world.admin.http.put(url, json={"kind": "slack", **SLACK.secrets})).status_code == 422
    assert (await world.admin.http.put(url, json={"kind": "teams", **TEAMS.secrets})).status_code == 204
    world.provider.queue(Script(text="It scatters."))
    assert await world.whole(path, TEAMS.message("Why?")) == "It scatters."


async def test_the_answer_arrives_whole_though_whoever_brought_it_was_killed(world: World) -> None:
    path = await world.add(SLACK)
    text = (WORDS * 6).strip()
    world.provider.queue(Script(text=text, token_s=0.1))
    await world.taken(path, SLACK.event("Why?"))
    await world.there.until(lambda: any(len(one) > 40 for one in world.texts()))
    killed = world.up.child("gateway")
    killed.kill()
    await world.shown(text)
    assert len(world.there.threads) == 1
    assert await eventually(world.generations, bool) == 1
    # And whoever came back is there for the next one.
    world.provider.queue(Script(text="Next."))
    await eventually(lambda: world.send(path, SLACK.signed(b"{}")), lambda found: found.status_code == 200)
    await world.taken(path, SLACK.event("And?"))
    await world.shown(text, "Next.")


async def test_a_removed_tool_is_nobodys(world: World) -> None:
    path = await world.add(SLACK)
    (tool,) = (await world.admin.get("/v1/chat-tools"))["chat_tools"]
    assert tool["path"] == path
    assert (await world.admin.http.delete(f"/v1/chat-tools/{tool['id']}")).status_code == 204
    assert (await world.send(path, SLACK.event("Why?"))).status_code == 401
    assert (await world.admin.http.delete(f"/v1/chat-tools/{tool['id']}")).status_code == 404
    told = await eventually(world.admin.events, lambda found: "chat_tool.removed.v1" in {one["type"] for one in found})
    assert BOT_TOKEN not in json.dumps(told)


@pytest.mark.parametrize(
    ("changed", "status", "kind"),
    [
        ({"model": "none-such"}, 422, "unknown-model"),
        ({"persona": "none-such"}, 422, "unknown-persona"),
        ({"kind": "irc"}, 422, "invalid-request"),
        ({"signing_secret": None}, 422, "invalid-request"),
        ({"another": 1}, 422, "invalid-request"),
    ],
)
async def test_a_tool_that_could_not_be_asked_by_is_refused(
    world: World, changed: Json, status: int, kind: str
) -> None:
    body = {"kind": "slack", "name": "Help desk", **SLACK.secrets} | changed
    answer = await world.admin.http.post("/v1/chat-tools", json=body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:parley:problem:{kind}")
    assert BOT_TOKEN not in answer.text


async def test_it_is_asked_as_the_persona_of_the_tool(world: World) -> None:
    saved = await world.admin.http.post(
        "/v1/personas", json={"name": "clerk", "definition": {"system": "Be brief.", "model": "fast"}}
    )
    assert saved.status_code == 201, saved.text
    path = await world.add(SLACK, persona="clerk")
    world.provider.queue(Script(text="Yes."))
    await world.taken(path, SLACK.event("Why?"))
    await world.shown("Yes.")
    assert [one["content"] for one in world.prompts[0]] == ["Be brief.", "Why?"]
    assert CHANNEL not in json.dumps(world.prompts[0])
