"""The shell around one service, in real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from cli.failures import EX_CONFIG

DEADLINE_S = 30.0

HEAD = """
import asyncio, sys
from backplane.telemetry import status
from cli import process
from cli.failures import ConfigurationError, TryAgain
from backplane.ports.database import DatabaseUnavailable
"""
WAITING = """
async def serve(settings, stop):
    status.ready("here")
    await stop.wait()
    print("stopped in order", flush=True)
"""
RUN = '\nsys.exit(process.run("test", serve))\n'


async def start(code: str, cwd: Path, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HEAD + code + RUN),
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PARLEY_STATUS": "1", **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_S)
    assert json.loads(line) == {"ready": True, "detail": "here"}


async def end(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):  # standard input stays open, unlike with communicate()
        out, err, code = await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
    return code, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    process = await start(WAITING, tmp_path)
    await ready(process)
    process.send_signal(number)
    assert (await end(process))[:2] == (0, "stopped in order\n")


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    deaf = WAITING.replace(
        'print("stopped in order", flush=True)', 'status.ready("here"); await asyncio.Event().wait()'
    )
    process = await start(deaf, tmp_path)
    await ready(process)
    process.send_signal(signal.SIGTERM)
    await ready(process)
    process.send_signal(signal.SIGTERM)
    assert (await end(process))[0] == 128 + signal.SIGTERM


async def test_it_ends_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    process = await start(WAITING, tmp_path, PARLEY_SUPERVISED="1")
    await ready(process)
    assert process.stdin is not None
    process.stdin.close()
    assert (await end(process))[:2] == (0, "stopped in order\n")


async def test_alone_it_does_not_care_for_standard_input(tmp_path: Path) -> None:
    process = await start(WAITING, tmp_path)
    assert process.stdin is not None
    process.stdin.close()
    await ready(process)
    process.send_signal(signal.SIGTERM)
    assert (await end(process))[0] == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [("ConfigurationError('no pool')", 78), ("TryAgain('no pool')", 75), ("DatabaseUnavailable('no pool')", 75)],
)
async def test_an_expected_error_is_one_line_and_an_exit_code(tmp_path: Path, error: str, code: int) -> None:
    process = await start(f"async def serve(settings, stop): raise {error}", tmp_path)
    returned, out, err = await end(process)
    assert returned == code
    assert json.loads(out) == {"failed": "no pool"}
    (line,) = err.splitlines()
    assert json.loads(line)["message"] == "no pool"


async def test_a_bug_shows_where_it_happened(tmp_path: Path) -> None:
    process = await start("async def serve(settings, stop): raise KeyError('secret')", tmp_path)
    returned, out, err = await end(process)
    assert returned == 70
    assert json.loads(out) == {"failed": "KeyError, see the log"}
    assert "Traceback" in json.loads(err.splitlines()[-1])["trace"]


async def test_a_wrong_setting_ends_it_before_it_begins(tmp_path: Path) -> None:
    process = await start(WAITING, tmp_path, PARLEY_PORT="many")
    returned, out, _ = await end(process)
    assert returned == 78
    assert "PARLEY_PORT" in json.loads(out)["failed"]


async def test_a_collector_without_what_sends_to_it_is_a_mistake_that_names_the_extra(tmp_path: Path) -> None:
    without = "\nsys.modules['opentelemetry.sdk'] = None\n"
    process = await start(without + WAITING, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == EX_CONFIG
    [failed] = [json.loads(line)["failed"] for line in out.splitlines()]
    assert "pip install 'parley[otel]'" in failed


async def test_a_collector_that_is_away_keeps_no_service_from_its_end(tmp_path: Path) -> None:
    traced = """
from backplane.telemetry import traces

async def serve(settings, stop):
    with traces.span("request", kind=traces.Kind.SERVER):
        assert traces.current() is not None
    status.ready("here")
    await stop.wait()
    print("stopped in order", flush=True)
"""
    process = await start(traced, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    await ready(process)
    process.send_signal(signal.SIGTERM)
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert (process.returncode, out) == (0, b"stopped in order\n")
