"""`parley up`: every server and service of one machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
import signal
from contextlib import suppress
from functools import partial

from backplane.settings import LlmSettings, Settings
from backplane.wiring.embedded import embedded_postgres, embedded_valkey
from backplane.wiring.operations import set_up
from cli import data_folder, local_models, personas, port, tenancy
from cli.board import Board
from cli.programs import server_program, service_programs
from cli.supervisor import Supervisor

_MODEL = "model"


def run(settings: Settings, llm: LlmSettings) -> None:
    """Start everything and keep it running until a signal asks for the end.

    Raises FolderInUse, PortUnusable, ChildFailed, ModelError, EmbeddedServerError, DatabaseUnavailable.
    """
    with data_folder.lock(settings.data_dir) as lock, Board() as board:
        port.check(settings.host, settings.port)
        asyncio.run(_run(settings, llm, lock, board))


async def _run(settings: Settings, llm: LlmSettings, lock: int, board: Board) -> None:
    supervisor = Supervisor(settings.data_dir / "logs", board, lock=lock)
    stop = asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            board.line("killing what still runs")
            supervisor.kill()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
    starting = asyncio.create_task(_start(settings, llm, supervisor, board))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stopping
    finally:
        stop.set()
        starting.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await starting
        board.line("stopping")
        await supervisor.stop()
        board.line("stopped; all data are kept")


async def _start(settings: Settings, llm: LlmSettings, supervisor: Supervisor, board: Board) -> None:
    finding = asyncio.create_task(local_models.resolved(settings, llm, partial(board.progress, _MODEL)))
    try:
        for server in (embedded_postgres(settings), embedded_valkey(settings)):
            if server is not None:
                board.line(f"starting {server.name}")
                await supervisor.start(server_program(server))
        before, after = await set_up(settings)
        if before != after:
            board.line(f"migrated the database from {before or 'nothing'} to {after}")
        fresh_key = await tenancy.first_admin_key(settings)
        settings = await finding
    finally:
        finding.cancel()
        board.done(_MODEL)
    for notice in local_models.new_notices(settings):
        board.line(notice)
    if settings.personas_dir.is_dir():
        for one in await personas.load(settings, tenancy.FIRST_TENANT, settings.personas_dir):
            for line in one.lines():
                board.line(line)
    programs = service_programs(settings)
    board.line(f"starting {', '.join(program.name for program in programs)}")
    # Side by side, since each takes a second or two to load; the gateway comes last, and it alone has an address.
    *_, address = await asyncio.gather(*(supervisor.start(program) for program in programs))
    for line in welcome(settings, address, fresh_key):
        board.line(line)


def welcome(settings: Settings, address: str, fresh_key: str | None) -> list[str]:
    """What is shown when everything works. ``fresh_key`` is in it this one time only."""
    file = data_folder.admin_key_file(settings.data_dir).resolve()
    key = f'"Authorization: Bearer $(cat {shlex.quote(str(file))})"'
    prompt = (
        f"curl -sS {address}/v1/prompts -H {key} -H 'Content-Type: application/json' "
        """-d '{"input": "Why is the sky blue?"}'"""
    )
    first_stream_url = """sed -E 's/.*"stream_url": *"([^"]*)".*/\\1/'"""
    made = []
    if fresh_key is not None:
        made = [
            "",
            f"The first admin key, shown this once, and kept in {file}:",
            f"  {fresh_key}",
        ]
    return [
        *made,
        "",
        f"Parley is ready: {address} (Ctrl-C stops it)",
        "",
        "Send a prompt:",
        f"  {prompt}",
        "Send a prompt and stream its answer:",
        f'  curl -sSN "{address}$({prompt} | {first_stream_url})" -H {key}',
        "Or talk to it:",
        '  parley chat "Why is the sky blue?"',
        "",
    ]
