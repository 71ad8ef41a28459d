"""A process of its own for the suite: ``python -m tests.contract.bus.child <spec> <task>``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from backplane.ports.bus import Bus, BusUnavailable, Mode
from tests.contract.bus.harness import BusSpec


async def publish(bus: Bus, task: dict[str, Any]) -> None:
    """Publish, and say each payload once it is confirmed."""
    for number in range(task["count"]):
        payload = f"{task['name']}:{number}"
        while True:
            try:
                await bus.publish(task["topic"], payload.encode(), key=task.get("key"))
            except BusUnavailable:
                await asyncio.sleep(0.02)
            else:
                break
        print(payload, flush=True)


async def consume(bus: Bus, task: dict[str, Any]) -> None:
    """Say what is received, acking it before or, with ``ack`` false, never."""
    consumer = await bus.subscribe([task["topic"]], task["subscription"], Mode(task["mode"]), prefetch=10)
    while True:
        for message in await consumer.receive(10):
            print(message.payload.decode(), flush=True)
            if task["ack"]:
                await consumer.ack(message)


async def main(spec: str, task: str) -> None:
    bus = BusSpec(**json.loads(spec)).open()
    what = json.loads(task)
    await {"publish": publish, "consume": consume}[what["do"]](bus, what)
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
