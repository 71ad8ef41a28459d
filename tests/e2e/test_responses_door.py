"""OpenAI's own SDK asking for responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.e2e.client import Client, eventually
from tests.e2e.conftest import SMALL, Callers
from tests.e2e.running import Up
from tests.providers.script import Call, Script
from tests.providers.server import providers

pytestmark = pytest.mark.timeout(300)

ASK = "Why is the sky blue?"
SCRIPTED = "script"
ENDED = ("completed", "incomplete", "failed", "cancelled")

Json = dict[str, Any]


def scripted(**script: Any) -> dict[str, str]:
    return {"script": json.dumps(script)}


ENDLESS = scripted(count=100_000, delay_s=0.02)


def generation_id(response_id: str) -> str:
    return str(UUID(response_id.removeprefix("resp_")))


class Door:
    """The SDK of one caller, and the caller itself."""

    def __init__(self, sdk: AsyncOpenAI, caller: Client) -> None:
        self.sdk = sdk
        self.caller = caller

    async def ask(self, **request: Any) -> Any:
        return await self.sdk.responses.create(**{"model": SCRIPTED, "input": ASK} | request)

    async def stream(self, **request: Any) -> list[Any]:
        """All events."""
        return [event async for event in await self.ask(stream=True, **request)]

    async def again(self, response_id: str, starting_after: int | None = None) -> list[Any]:
        """All events of one that was asked for before."""
        after: Any = {} if starting_after is None else {"starting_after": starting_after}
        return [event async for event in await self.sdk.responses.retrieve(response_id, stream=True, **after)]

    async def ended(self, response_id: str) -> Any:
        return await eventually(lambda: self.sdk.responses.retrieve(response_id), lambda found: found.status in ENDED)

    async def was_asked(self, response: Any) -> list[Json]:
        """What the model was shown, as its conversation has it."""
        await self.ended(response.id)

        async def messages() -> list[Json]:
            return await self.caller.messages(generation_conversation(response))

        its_id = generation_id(response.id)
        shown = await eventually(messages, lambda found: any(one["id"] == its_id for one in found))
        return [one for one in shown if one["role"] != "assistant"]


def generation_conversation(response: Any) -> str:
    return str(UUID(response.conversation.id.removeprefix("conv_")))


@pytest.fixture
async def door(parley: Up, admin: Client) -> AsyncIterator[Door]:
    async with AsyncOpenAI(base_url=f"{parley.url}/v1", api_key=admin.key, max_retries=0) as sdk:
        yield Door(sdk, admin)


def numbers(events: list[Any]) -> list[int]:
    return [one.sequence_number for one in events]


def plain(events: list[Any]) -> list[Json]:
    """Events less what only the request itself knows."""
    found = []
    for one in events:
        event = one.to_dict()
        if "response" in event:
            event["response"] |= {"background": None, "truncation": None}
        found.append(event)
    return found


async def test_a_response(door: Door) -> None:
    raw = await door.sdk.responses.with_raw_response.create(
        model=SCRIPTED,
        input=ASK,
        instructions="Be brief.",
        max_output_tokens=5,
        temperature=0.5,
        user="u-17",
        metadata=scripted(tokens=["a ", "b"]),
    )
    found = raw.parse()
    assert (found.object, found.status, found.output_text, found.model) == ("response", "completed", "a b", SCRIPTED)
    assert (found.instructions, found.max_output_tokens, found.temperature) == ("Be brief.", 5, 0.5)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.total_tokens) == (7, 2, 9)
    assert found.metadata == {**scripted(tokens=["a ", "b"]), "user": "u-17"}
    assert generation_id(found.id) == raw.headers["parley-generation-id"]
    assert generation_conversation(found) == raw.headers["parley-conversation-id"]
    assert raw.headers["x-request-id"]
    read = await door.ended(found.id)
    assert read.to_dict() == found.to_dict() | {"background": None}


async def test_how_the_limits_stand_is_told_with_each_answer(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    caller = await callers.caller(tenant_id, "member")
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--requests-per-minute", "5")
    for left, stream in ((4, False), (3, True)):
        answer = await caller.http.post("/v1/responses", json={"model": SCRIPTED, "input": ASK, "stream": stream})
        assert answer.status_code == 200, answer.text
        requests = [answer.headers[f"x-ratelimit-{part}-requests"] for part in ("limit", "remaining")]
        assert requests == ["5", str(left)]
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")


async def test_a_stream_to_the_letter(door: Door) -> None:
    events = await door.stream(metadata=scripted(tokens=["a ", "b"]))
    assert numbers(events) == [*range(11)]
    assert [one.type.removeprefix("response.") for one in events] == [
        "created",
        "queued",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == "a b"
    last = events[-1].response
    assert (last.status, last.output_text) == ("completed", "a b")
    assert last.output[0].id == events[3].item.id
    assert (await door.ended(last.id)).to_dict() == last.to_dict() | {"background": None}


async def test_the_sdks_own_stream_reads_it_with_what_it_stands_for(door: Door) -> None:
    class City(BaseModel):
        name: str
        country: str

    said = ['{"name": ', '"Bonn", ', '"country": "Germany"}']
    async with door.sdk.responses.stream(
        model=SCRIPTED, input=ASK, text_format=City, metadata=scripted(tokens=said)
    ) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == City(name="Bonn", country="Germany")
    async with door.sdk.responses.stream(response_id=final.id, starting_after=6, text_format=City) as stream:
        assert [event.sequence_number async for event in stream] == [*range(7, 12)]
    assert final.text is not None
    assert final.text.format is not None
    assert final.text.format.type == "json_schema"


async def test_an_answer_of_a_given_shape(door: Door) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    shape: Any = {"format": {"type": "json_schema", "name": "person", "schema": schema}}
    script = json.dumps([{"tokens": ["none"]}, {"tokens": ['{"age": 3}']}])
    found = await door.ask(text=shape, metadata={"script": script})
    assert found.output_text == '{"age": 3}'
    with pytest.raises(openai.APIStatusError) as misfit:
        await door.ask(text=shape, metadata=scripted(tokens=["none"]))
    assert (misfit.value.status_code, misfit.value.code) == (502, "answer_does_not_fit")


async def test_it_can_be_taken_up_from_every_place(door: Door) -> None:
    whole = await door.stream(metadata=scripted(count=4))
    response_id = whole[0].response.id
    assert plain(await door.again(response_id)) == plain(whole)
    for place, event in enumerate(whole):
        assert plain(await door.again(response_id, event.sequence_number)) == plain(whole[place + 1 :])


async def test_it_can_be_taken_up_while_it_runs(door: Door) -> None:
    stream = await door.ask(stream=True, background=True, metadata=scripted(count=40, delay_s=0.02))
    begun = []
    async for event in stream:
        begun.append(event)
        if len(begun) == 12:
            break
    await stream.close()
    rest = await door.again(begun[0].response.id, begun[-1].sequence_number)
    assert numbers(begun + rest) == [*range(49)]
    assert plain(begun + rest) == plain(await door.again(begun[0].response.id))


async def test_in_the_background(door: Door) -> None:
    found = await door.ask(background=True, metadata=scripted(count=3, delay_s=0.05))
    assert (found.status, found.background, found.output) == ("queued", True, [])
    assert (await door.sdk.responses.retrieve(found.id)).status in ("queued", "in_progress", "completed")
    ended = await door.ended(found.id)
    assert (ended.status, len(ended.output_text.split())) == ("completed", 3)


async def test_cancel(door: Door) -> None:
    found = await door.ask(background=True, metadata=ENDLESS)
    following = asyncio.create_task(door.again(found.id))
    cancelled = await door.sdk.responses.cancel(found.id)
    assert cancelled.status == "cancelled"
    assert (await door.sdk.responses.cancel(found.id)).status == "cancelled"
    last = (await following)[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")
    assert (await door.ended(found.id)).status == "cancelled"
    assert (await door.caller.ended(generation_id(found.id)))["status"] == "cancelled"


async def test_who_goes_away_stops_what_is_not_to_be_stored_and_only_that(door: Door) -> None:
    for store, status in ((False, "cancelled"), (True, "completed")):
        script = ENDLESS if not store else scripted(count=20, delay_s=0.02)
        stream = await door.ask(stream=True, store=store, metadata=script)
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
            if event.type == "response.created":
                response_id = event.response.id
        await stream.close()
        assert (await door.ended(response_id)).status == status


async def test_delete(door: Door) -> None:
    first = await door.ask(background=True, metadata=ENDLESS)
    await door.sdk.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await door.sdk.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        await door.again(first.id)
    one = await door.ask()
    await door.ask(previous_response_id=one.id)
    with pytest.raises(openai.ConflictError) as refused:
        await door.sdk.responses.delete(one.id)
    assert refused.value.code == "conversation_goes_on"
    assert (await door.sdk.responses.retrieve(one.id)).status == "completed"


async def test_what_it_was_asked_with(door: Door) -> None:
    items: Any = [
        {"role": "developer", "content": "Know the sky."},
        {"role": "user", "content": [{"type": "input_text", "text": "Why is it blue?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}]},
        {"role": "user", "content": "Do."},
    ]
    first = await door.ask(input=items, metadata=scripted(tokens=["Air."]))
    second = await door.ask(input="And at dusk?", previous_response_id=first.id, instructions="Be brief.")
    listed = [one async for one in door.sdk.responses.input_items.list(second.id, order="asc", limit=2)]
    shown: list[Any] = [one.to_dict() for one in listed]
    assert len({one["id"] for one in shown}) == len(shown)
    for one in shown:
        assert one.pop("id")
        assert one.pop("status") == "completed"
        for part in one.get("content", ()):
            part.pop("annotations", None)
            part.pop("logprobs", None)
    assert shown == [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Know the sky."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why is it blue?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Do."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Air."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And at dusk?"}]},
    ]
    newest = await door.sdk.responses.input_items.list(second.id, limit=1)
    assert (newest.data[0].id, newest.has_more) == (listed[-1].id, True)
    with pytest.raises(openai.BadRequestError) as refused:
        await door.sdk.responses.input_items.list(first.id, after=listed[-1].id)
    assert refused.value.param == "after"


async def test_one_goes_on_from_another(door: Door) -> None:
    first = await door.ask(instructions="Speak Latin.", metadata=scripted(tokens=["Aer."]))
    second = await door.ask(input="one two three", previous_response_id=first.id, metadata=scripted(echo=True))
    third = await door.ask(input="four", previous_response_id=first.id)
    assert second.previous_response_id == third.previous_response_id == first.id
    assert second.conversation == third.conversation == first.conversation
    assert second.instructions is None
    assert (await door.ended(second.id)).previous_response_id == first.id
    # "Why is the sky blue?", "Aer.", "one two three"; the instructions were for the first one only.
    assert second.usage.input_tokens == 5 + 1 + 3
    with_system = await door.ask(input=[{"role": "system", "content": "Know it."}, {"role": "user", "content": "a"}])
    after_it = await door.ask(input="b c", previous_response_id=with_system.id, metadata=scripted(tokens=["d"]))
    assert after_it.usage.input_tokens == 2 + 1 + len(with_system.output_text.split()) + 2


async def test_a_conversation_goes_on_where_it_is_named(door: Door) -> None:
    first = await door.ask(metadata=scripted(tokens=["Air."]))
    second = await door.ask(input="And at dusk?", conversation=first.conversation.id, metadata=scripted(tokens=["b"]))
    third = await door.ask(input="At night?", conversation={"id": generation_conversation(first)})
    assert third.conversation == second.conversation == first.conversation
    assert second.previous_response_id == first.id or (await door.ended(second.id)).previous_response_id == first.id
    assert [one["content"] for one in await door.was_asked(third)] == [ASK, "And at dusk?", "At night?"]


async def test_items_are_referred_to(door: Door) -> None:
    first = await door.ask(metadata=scripted(tokens=["Air."]))
    items: Any = [
        {"role": "user", "content": ASK},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "And at dusk?"},
    ]
    second = await door.ask(input=items)
    messages = await door.caller.messages(generation_conversation(second))
    assert [one["content"] for one in messages][:3] == [ASK, "Air.", "And at dusk?"]
    with pytest.raises(openai.BadRequestError) as refused:
        await door.ask(input=[{"type": "item_reference", "id": f"msg_{uuid4().hex}_1_0"}])
    assert refused.value.param == "input"


async def test_an_answer_that_was_cut(door: Door) -> None:
    found = await door.ask(max_output_tokens=2)
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert found.output[0].status == "incomplete"
    last = (await door.stream(max_output_tokens=2))[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"model": "gpt-17"}, 404, {"type": "not_found_error", "code": "model_not_found", "param": "model"}),
        ({"input": ""}, 400, {"type": "invalid_request_error", "param": "input"}),
        ({"input": []}, 400, {}),
        ({"temperature": 3}, 400, {"param": "temperature"}),
        ({"max_output_tokens": 0}, 400, {"param": "max_output_tokens"}),
        ({"previous_response_id": f"resp_{uuid4().hex}"}, 404, {"code": "previous_response_not_found"}),
        ({"previous_response_id": "mine"}, 404, {"param": "previous_response_id"}),
        ({"previous_response_id": "a", "conversation": "b"}, 400, {"param": "previous_response_id"}),
        ({"conversation": "mine"}, 404, {"type": "not_found_error"}),
        ({"conversation": f"conv_{uuid4().hex}"}, 404, {"type": "not_found_error"}),
        ({"background": True, "store": False}, 400, {"param": "store"}),
        ({"tools": [{"type": "web_search"}]}, 400, {}),
        ({"tool_choice": "required"}, 400, {}),
        ({"include": ["file_search_call.results"]}, 400, {"param": "include[0]"}),
        ({"top_logprobs": 2}, 400, {"param": "logprobs", "code": "unsupported_by_model"}),
        ({"max_tool_calls": 3}, 400, {"param": "max_tool_calls"}),
        ({"moderation": {}}, 400, {"param": "moderation"}),
        ({"input": [{"type": "computer_call"}]}, 400, {}),
        ({"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": "https://a"}]}]}, 400, {}),
    ],
)
async def test_what_is_wrong_is_told_in_openais_words(
    door: Door, request_: Json, status: int, error: dict[str, str]
) -> None:
    response = await door.caller.http.post("/v1/responses", json={"model": SCRIPTED, "input": ASK} | request_)
    told = response.json()
    assert (response.status_code, told.keys()) == (status, {"error"}), response.text
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert told["error"] | error == told["error"]
    assert told["error"]["message"]


@pytest.mark.parametrize("path", ["", "/cancel", "/input_items"])
@pytest.mark.parametrize("response_id", ["mine", f"resp_{UUID(int=7).hex}"])
async def test_what_is_not_there_is_told_so(door: Door, path: str, response_id: str) -> None:
    method = "POST" if path == "/cancel" else "GET"
    response = await door.caller.http.request(method, f"/v1/responses/{response_id}{path}")
    assert (response.status_code, response.json()["error"]["message"]) == (404, "There is no such response.")


async def test_a_place_to_start_after_is_a_streams(door: Door) -> None:
    found = await door.ask()
    for query in ({"starting_after": "3"}, {"stream": "true", "starting_after": "-1"}):
        response = await door.caller.http.get(f"/v1/responses/{found.id}", params=query)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "starting_after")


async def test_one_that_fails(door: Door) -> None:
    failing = scripted(fail_after=1, fail_kind="refused", fail_reason="invalid_request")
    with pytest.raises(openai.BadRequestError) as refused:
        await door.ask(metadata=failing)
    assert refused.value.code == "invalid_request"
    last = (await door.stream(metadata=failing))[-1]
    assert (last.type, last.response.status, last.response.error.code) == (
        "response.failed",
        "failed",
        "invalid_prompt",
    )
    assert last.response.error.message.startswith("invalid_request: ")
    read = await door.ended(last.response.id)
    assert read.to_dict() == last.response.to_dict() | {"background": None}


async def test_a_restart_leaves_its_item_and_begins_another_one(door: Door) -> None:
    script = json.dumps([{"tokens": ["half"], "fail_after": 1, "delay_s": 0.3}, {"tokens": ["whole"]}])
    async with door.sdk.responses.stream(model=SCRIPTED, input=ASK, metadata={"script": script}) as stream:
        events: list[Any] = [event async for event in stream]
        final = await stream.get_final_response()
    assert final.output_text == "whole"
    added = [one for one in events if one.type == "response.output_item.added"]
    done = [one for one in events if one.type == "response.output_item.done"]
    deltas = [one for one in events if one.type == "response.output_text.delta"]
    assert [one.output_index for one in added] == [one.output_index for one in done] == [0, 1]
    assert [one.item.status for one in done] == ["incomplete", "completed"]
    assert [(one.delta, one.snapshot) for one in deltas] == [("half", "half"), ("whole", "whole")]
    assert numbers(events) == sorted(set(numbers(events)))
    # Who comes back with what it saw of the first attempt, when nobody knows of that any more.
    back = await door.again(final.id, deltas[0].sequence_number)
    at = events.index(done[0])
    assert numbers(back) == numbers(events[at:])
    assert [one.type for one in back] == [one.type for one in events[at:]]
    assert [one.output_index for one in back if hasattr(one, "output_index")] == [
        one.output_index for one in events[at:] if hasattr(one, "output_index")
    ]


async def test_the_same_key_gives_the_same_response(door: Door) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    first = await door.ask(extra_headers=key)
    again = await door.ask(extra_headers=key)
    assert first.to_dict() == again.to_dict()
    with pytest.raises(openai.ConflictError):
        await door.ask(temperature=0.3, extra_headers=key)


async def test_answers_that_were_asked_for_elsewhere_are_responses_too(door: Door) -> None:
    accepted = await door.caller.submit(ASK, model=SMALL, system="Be brief.")
    await door.caller.ended(accepted["generation_id"])
    found = await door.sdk.responses.retrieve(f"resp_{UUID(accepted['generation_id']).hex}")
    assert (found.status, found.instructions, found.model) == ("completed", "Be brief.", SMALL)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    """Not started yet."""
    made = Up(tmp_path)
    yield made
    made.end()


def tool(name: str) -> Any:
    return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, "strict": None}


async def test_models_that_think_and_ask_for_tools(own: Up) -> None:
    async with providers() as server:
        server.add_key("sk-good")
        pool = {"backend": "openai", "base_url": server.openai_url, "models": ["gpt-4o-mini"], "keys": ["sk-good"]}
        own.environment["PARLEY_POOLS"] = json.dumps({"cloud": pool})
        await asyncio.to_thread(own.start)
        await asyncio.to_thread(own.ready)
        async with AsyncOpenAI(base_url=f"{own.url}/v1", api_key=own.admin_key, max_retries=0) as sdk:
            look, listen = Call(name="look", arguments={"at": "it"}), Call(name="listen", arguments={"to": "it"})
            server.queue(Script(reasoning=3, calls=(look, listen), interleaved=True))
            tools = [tool("look"), tool("listen")]
            async with sdk.responses.stream(model="gpt-4o-mini", input=ASK, tools=tools) as stream:
                events: list[Any] = [event async for event in stream]
                asked = await stream.get_final_response()
            outcome: Any = asked.output
            thought, *calls = outcome
            assert thought.type == "reasoning"
            assert len(thought.summary[0].text.split()) == 3
            said = [(one.name, json.loads(one.arguments)) for one in calls]
            assert said == [("look", {"at": "it"}), ("listen", {"to": "it"})]
            assert [one.item.to_dict() for one in events if one.type == "response.output_item.done"] == [
                one.to_dict() for one in (await sdk.responses.retrieve(asked.id)).output
            ]
            assert [one.name for one in asked.tools if one.type == "function"] == ["look", "listen"]
            again = [one async for one in await sdk.responses.retrieve(asked.id, stream=True)]
            assert numbers(again) == numbers(events) == sorted(numbers(events))

            # By the answer before, by reference, and with all of it again.
            outputs: Any = [
                {"type": "function_call_output", "call_id": one.call_id, "output": "A cat"} for one in calls
            ]
            user: Any = {"role": "user", "content": ASK}
            references: Any = [{"type": "item_reference", "id": one.id} for one in outcome]
            sent: Any = [one.to_dict() for one in (await sdk.responses.retrieve(asked.id)).output]
            for given in (
                {"input": outputs, "previous_response_id": asked.id},
                {"input": [user, *references, *outputs]},
                {"input": [user, *sent, *outputs]},
            ):
                request: Any = {"model": "gpt-4o-mini", "tools": tools, **given}
                assert (await sdk.responses.create(**request)).status == "completed"
                shown = server.ledger["sk-good"].asked[-1].body["messages"]
                assert [one["role"] for one in shown] == ["user", "assistant", "tool", "tool"]
                assert [one["function"]["name"] for one in shown[1]["tool_calls"]] == ["look", "listen"]

            image: Any = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
            likely = await sdk.responses.create(
                model="gpt-4o-mini",
                input=[{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}],
                include=["message.output_text.logprobs"],
                top_logprobs=2,
            )
            answer: Any = likely.output[0]
            logprobs = answer.content[0].logprobs
            assert "".join(one.token for one in logprobs) == likely.output_text
            assert {len(one.top_logprobs) for one in logprobs} == {2}
            listed = await sdk.responses.input_items.list(likely.id)
            newest: Any = listed.data[0].to_dict()
            assert newest["content"][1] == image


async def test_a_response_outlives_every_process(own: Up) -> None:
    """Once stopped in order, once killed: whoever comes back with a number is told what follows it."""
    await asyncio.to_thread(own.start)
    await asyncio.to_thread(own.ready)
    tokens = [f"{number} " for number in range(60)]
    for restart in (own.stop, own.kill_everything):
        async with AsyncOpenAI(base_url=f"{own.url}/v1", api_key=own.admin_key, max_retries=5) as sdk:
            stream = await sdk.responses.create(
                model=SCRIPTED,
                input=ASK,
                stream=True,
                background=True,
                metadata=scripted(tokens=tokens, delay_s=0.2),
            )
            seen: list[Any] = []
            async for event in stream:
                seen.append(event)
                if len(seen) == 12:
                    break
            await asyncio.to_thread(restart)
            await asyncio.to_thread(own.start)
            await asyncio.to_thread(own.ready)
            response_id = seen[0].response.id
            rest: list[Any] = [
                event
                async for event in await sdk.responses.retrieve(
                    response_id, stream=True, starting_after=seen[-1].sequence_number
                )
            ]
            told = seen + rest
            assert numbers(told) == sorted(set(numbers(told)))
            final = rest[-1].response
            assert (rest[-1].type, final.output_text) == ("response.completed", "".join(tokens))
            # What counts of what was told is the answer, of one attempt.
            said = {one.item.id: "" for one in told if one.type == "response.output_item.added"}
            for one in told:
                if one.type == "response.output_text.delta":
                    said[one.item_id] += one.delta
            assert said[final.output[0].id] == "".join(tokens)
            left = [one.item.id for one in told if one.type.endswith("item.done") and one.item.status == "incomplete"]
            assert left == [id for id in said if id != final.output[0].id]
            last_five = await sdk.responses.retrieve(response_id, stream=True, starting_after=rest[-6].sequence_number)
            assert plain([event async for event in last_five]) == plain(rest[-5:])
