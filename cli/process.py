"""The shell around one service: logs, event loop, signals, and an end that its supervisor understands."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from backplane.settings import Settings
from backplane.telemetry import logs, status
from cli import configuration
from cli.exit_codes import EXPECTED, exit_code, one_line
from cli.failures import ConfigurationError

SUPERVISED = "PARLEY_SUPERVISED"
"""Environment variable that the supervisor sets to `1`: standard input is then a pipe that closes when it is gone."""

_COLLECTOR = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_ORPHAN_GRACE_S = 5.0
_EX_SOFTWARE = 70

Serve = Callable[[Settings, asyncio.Event], Awaitable[None]]
logger = logging.getLogger(__name__)


def run(service: str, serve: Serve, prepare: Callable[[Settings], Settings] = lambda settings: settings) -> int:
    """Run ``serve`` until it ends or a signal asks it to stop; return the process's exit code.

    SIGTERM and SIGINT set its event; a second one ends the process at once. So does the loss of the supervisor,
    after a few seconds. ``prepare`` may complete the settings first.
    """
    logs.configure(service, "INFO")
    try:
        settings = prepare(configuration.load())
        logs.configure(service, settings.log_level)
        with sending_traces(service):
            _run(serve, settings)
    except Exception as raised:
        code, why = failure(raised)
        status.failed(why)
        return code
    return 0


@contextmanager
def sending_traces(service: str) -> Iterator[None]:
    """Spans are sent while this is open, where OpenTelemetry's own environment variables name a collector.

    Raises ConfigurationError where what sends them is not installed.
    """
    if not any(os.environ.get(name) for name in _COLLECTOR):
        yield
        return
    try:
        from backplane.telemetry.otel import exporting
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"{' or '.join(_COLLECTOR)} names a collector, and {missing.name} is not there to send it traces;"
            " install the extra: pip install 'parley[otel]'"
        ) from None
    with exporting(service):
        yield


def failure(raised: Exception) -> tuple[int, str]:
    """Log what ended a service; returns its exit code, and why in one line, without secrets."""
    error = _only(raised)
    if isinstance(error, EXPECTED):
        logger.error(one_line(error), extra={"action": "service_failed", "kind": type(error).__name__})
        return exit_code(error), one_line(error)
    logger.critical("a bug ended this service", exc_info=error, extra={"action": "service_crashed"})
    return _EX_SOFTWARE, f"{type(error).__name__}, see the log"


def _only(error: Exception) -> Exception:
    """The error itself, or the only one in the groups that task groups put around it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _run(serve: Serve, settings: Settings) -> None:
    if sys.platform == "win32":
        raise ConfigurationError("services run on Linux and macOS")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(serve, settings))


async def _until_stopped(serve: Serve, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        logger.info("stopping", extra={"action": "service_stopping", "signal": signal.Signals(number).name})
        stop.set()

    def orphaned() -> None:
        logger.warning("the supervisor is gone; stopping", extra={"action": "supervisor_lost"})
        stop.set()
        loop.call_later(_ORPHAN_GRACE_S, os._exit, _EX_SOFTWARE)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    if os.environ.get(SUPERVISED) == "1":
        _watch_standard_input(loop, orphaned)
    # What was imported stays for good. A full collection that looks through it stops every stream for tens of ms.
    gc.collect()
    gc.freeze()
    await serve(settings, stop)


def _watch_standard_input(loop: asyncio.AbstractEventLoop, closed: Callable[[], None]) -> None:
    # A thread of its own notices the end of the pipe even while the loop is busy, and ends with the process.
    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            logger.debug("standard input cannot be read")
        if not loop.is_closed():
            loop.call_soon_threadsafe(closed)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
