"""`make cluster-local`: the services of the compose file as processes of this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

from tests.cluster.cluster import Cluster


class Screen:
    def line(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, source: str, what: str, share: float) -> None:
        pass

    def done(self, source: str) -> None:
        pass


async def main() -> None:
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    with tempfile.TemporaryDirectory(prefix="parley-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cluster = Cluster(folder, Screen())
        starting = asyncio.create_task(cluster.start())
        asked = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not interrupted.is_set():
                await starting
                print(f"address: {cluster.url}\nkey: {await cluster.key()}\nlogs: {folder}/*/log", flush=True)
                await asked
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            asked.cancel()
            await cluster.stop()


if __name__ == "__main__":
    asyncio.run(main())
