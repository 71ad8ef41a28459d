import pytest

from backplane.ports.bus import Bus, Mode, Start
from tests.contract.bus.conftest import Children
from tests.contract.bus.harness import eventually


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_processes_that_publish_consume_and_die_lose_nothing(
    bus: Bus, topic: str, children: Children, mode: Mode
) -> None:
    await bus.ensure_subscription([topic], "s", Start.EARLIEST)
    task = {"do": "consume", "topic": topic, "subscription": "s", "mode": mode.value, "ack": True}
    doomed = await children.start(**task)
    publishers = [await children.start(do="publish", topic=topic, name=name, count=100) for name in ("a", "b")]
    seen = await doomed.lines(10)
    # Only now: on a busy machine one that is quicker to start could have taken everything.
    survivor = await children.start(**task)
    seen += await doomed.kill()
    published = [line for publisher in publishers for line in await publisher.lines(100)]

    async def all_acknowledged() -> bool:
        return sum(await bus.backlog(topic, "s")) == 0

    await eventually(all_acknowledged)
    seen += await survivor.kill()
    assert set(seen) == set(published)
    assert len(published) == 200
