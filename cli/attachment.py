"""Servers for one command: those that `parley up` runs, or else embedded ones for as long as the command takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from backplane.settings import Settings
from backplane.wiring.embedded import EmbeddedServer, embedded_postgres, embedded_valkey
from cli import data_folder
from cli.failures import TryAgain
from cli.programs import server_program
from cli.supervisor import Supervisor


class _Quiet:
    def line(self, text: str) -> None: ...

    def progress(self, source: str, what: str, share: float) -> None: ...

    def done(self, source: str) -> None: ...


@asynccontextmanager
async def servers(settings: Settings) -> AsyncIterator[None]:
    """Postgres and Valkey answer while the context lasts.

    Raises TryAgain where a running Parley's servers do not answer, EmbeddedServerError, ChildFailed.
    """
    wanted = [server for server in (embedded_postgres(settings), embedded_valkey(settings)) if server is not None]
    if all([await answers(server) for server in wanted]):
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(data_folder.lock(settings.data_dir))
        except data_folder.FolderInUse as error:
            raise TryAgain(f"{error}; its servers do not answer yet, try again in a moment") from None
        supervisor = Supervisor(settings.data_dir / "logs", _Quiet())
        stack.push_async_callback(supervisor.stop)
        for server in wanted:
            await supervisor.start(server_program(server))
        yield


async def answers(server: EmbeddedServer) -> bool:
    """Whether the server answers now."""
    try:
        await server.ping()
    except ConnectionError:
        return False
    return True
