"""How an example ends: all troubles are over, time passes, and everything that was promised has to come true."""

from __future__ import annotations

import json
from uuid import UUID

from event_schemas import topics
from tests.integration.generation_machine.backend import Outcome
from tests.integration.generation_machine.model import Generation
from tests.integration.generation_machine.scene import COMMANDS, SPARE_COMMANDS, TOPICS, Scene
from tests.integration.generation_machine.worker_process import HEARTBEAT_S
from tests.integration.generation_machine.world import SLOTS

_ROUNDS = (2.5, 2.5, HEARTBEAT_S) * 7


async def end(scene: Scene) -> None:
    """Raises AssertionError with what did not come true."""
    for process in scene.processes:
        process.set_trap(None)
        process.resume()
    scene.backend.let_all()
    for generation_id in scene.model.generations:
        scene.follower(generation_id, None)
    for seconds in _ROUNDS:
        for client in scene.clients:
            if not client.connected and client.ending is None:
                scene.connect(client)
            client.read(100)
        await scene.settled()
        if not _pending(scene):
            break
        for place, letter in enumerate(scene.broker.unowned(COMMANDS, SPARE_COMMANDS, topics.CONTROL)):
            scene.deliver(letter, SLOTS[place % len(SLOTS)])
        await scene.settled()
        await scene.relay()
        for topic in TOPICS:
            await scene.project(topic, 1_000)
        await scene.pass_time(seconds)
    pending = _pending(scene)
    assert not pending, f"however much time passes: {'; '.join(pending)}"
    for one in scene.model.generations.values():
        await _check(scene, one)


def _pending(scene: Scene) -> list[str]:
    """What has not come true yet."""
    pending: list[str] = []
    for one in scene.model.generations.values():
        if one.id not in scene.said.endings:
            pending.append(f"{one.id} has no published ending (attempt {one.attempt}, held by {one.holder})")
        if missing := {(one.id, attempt) for attempt in one.lost} - scene.said.lost:
            pending.append(f"nothing was said of the loss of {sorted(missing)}")
    for letter in scene.broker.unacked(COMMANDS, SPARE_COMMANDS, topics.CONTROL):
        pending.append(f"{letter} is not acked, though {sorted(scene.broker.holders[letter])} have it")
    if behind := scene.unprojected():
        pending.append(f"not projected: {behind}")
    pending += [f"a follower waits at {client.cursor}" for client in scene.clients if client.ending is None]
    return pending


async def _check(scene: Scene, one: Generation) -> None:
    ended = one.terminal
    assert ended is not None
    assert ended.attempt == one.attempt
    status = ended.wire_name.split(".")[1]
    message = await scene.stored("messages", one.id)
    assert len(message) == 1
    assert (message[0]["deltas"], message[0]["status"]) == (ended.deltas, status)
    assert json.loads(message[0]["answer"] or "null") == (ended.content and ended.content.model_dump())
    used = {row["attempt"]: row for row in await scene.stored("usage", one.id)}
    expected = one.lost | ({ended.attempt} if ended.attempt else set())
    assert set(used) == expected, f"usage of attempts {sorted(used)}, but there were {sorted(expected)}"
    for attempt in one.lost:
        never_began = scene.backend.outcomes.get((one.id, attempt)) is Outcome.AWAY
        assert used[attempt]["source"] == "estimated" or (never_began and not used[attempt]["output_tokens"])
    if ended.attempt:
        final = used[ended.attempt]
        assert (final["output_tokens"], final["source"]) == (ended.usage.output_tokens, ended.usage.source)


async def nothing_is_held_for_nobody(scene: Scene) -> None:
    """Once leases had time to run out, each that is held is held by a process that works on it."""
    for _ in range(6):
        await scene.pass_time(HEARTBEAT_S)
        await scene.settled()
    processes = {process.name: process for process in scene.processes}
    for generation_id in await scene.held():
        one = scene.model.generations[generation_id]
        assert one.holder is not None
        assert one.attempt is not None
        process = processes[one.holder]
        assert process.running, f"{one.id} is held by {one.holder}, which is gone"
        if not process.stalls and not _waits_for_history(scene, one):
            assert (generation_id, one.attempt) in scene.backend.gates, (
                f"attempt {one.attempt} of {one.id} is held by {one.holder}, which does not run it"
            )


def _waits_for_history(scene: Scene, one: Generation) -> bool:
    run: tuple[UUID, int] = one.id, one.attempt or 0
    return one.prompt.parent_message_id is not None and run not in scene.backend.produced
