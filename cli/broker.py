"""A Pulsar broker in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from pathlib import Path

from rich.console import Console

from backplane.wiring.embedded import EmbeddedServerError, standalone_pulsar
from cli.command import say
from cli.failures import CommandError, ConfigurationError

_POLL_S = 0.2
_GRACE_S = 20.0


async def run(folder: Path, port: int, admin_port: int, bookie_port: int) -> int:
    """Run the broker until a signal stops it; returns 0.

    Raises CommandError where it cannot start, or ends by itself.
    """
    server = standalone_pulsar(folder, port, admin_port, bookie_port)
    try:
        with Console(stderr=True).status("fetching Apache Pulsar (235 MB, once)"):
            await asyncio.to_thread(server.prepare)
    except EmbeddedServerError as error:
        raise ConfigurationError(str(error)) from None
    command = server.command()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with command.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # else Ctrl-C would reach it before we stop it
        )
    ended = asyncio.create_task(process.wait())
    try:
        while not stopped.is_set() and not ended.done():
            with contextlib.suppress(ConnectionError):
                await server.ping()
                _say_ready(port, admin_port)
                break
            await asyncio.wait([ended], timeout=_POLL_S)
        await asyncio.wait([ended, stopping := asyncio.create_task(stopped.wait())], return_when="FIRST_COMPLETED")
        stopping.cancel()
        if ended.done() and not stopped.is_set():
            raise CommandError(f"the broker ended with {process.returncode}: see {command.log}")
    finally:
        if not ended.done():
            process.send_signal(server.stop_signal)
            await asyncio.wait([ended], timeout=_GRACE_S)
        if not ended.done():
            # Nothing is lost: it keeps what it confirmed whatever happens to it.
            process.kill()
            await ended
    return 0


def _say_ready(port: int, admin_port: int) -> None:
    say("Pulsar is ready, and Ctrl-C stops it. Use it with:")
    print(f"PARLEY_BUS__PULSAR__URL=pulsar://127.0.0.1:{port}", flush=True)
    print(f"PARLEY_BUS__PULSAR__ADMIN_URL=http://127.0.0.1:{admin_port}", flush=True)
