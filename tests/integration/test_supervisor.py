"""The supervisor with real children: small Python programs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from cli.child import ChildFailed, Launch, Program
from cli.failures import ConfigurationError
from cli.restart import Backoff
from cli.supervisor import Supervisor, rotate

DEADLINE_S = 20.0
READY = "import json, sys; print(json.dumps({'ready': True, 'detail': 'here'}), flush=True); "
UNTIL_CLOSED = "sys.stdin.buffer.read()"


class Lines:
    """Keeps what the supervisor tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shares: list[tuple[str, str, float]] = []
        self.ended: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, source: str, what: str, share: float) -> None:
        self.shares.append((source, what, share))

    def done(self, source: str) -> None:
        self.ended.append(source)


def program(name: str, code: str, **options: object) -> Program:
    async def launch() -> Launch:
        return Launch(argv=(sys.executable, "-c", code), environment={"PATH": os.environ["PATH"]})

    return Program(name, launch, **options)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.01)


@pytest.fixture
def tell() -> Lines:
    return Lines()


@pytest.fixture
async def supervisor(tmp_path: Path, tell: Lines) -> AsyncIterator[Supervisor]:
    made = Supervisor(tmp_path / "logs", tell, backoff=lambda: Backoff(first_s=0.01, most_s=0.05))
    yield made
    made.kill()
    await made.stop()


async def test_a_child_is_ready_when_it_says_so(supervisor: Supervisor, tell: Lines) -> None:
    code = READY.replace("; print", "; print(json.dumps({'progress': 'loading', 'share': 0.5}), flush=True); print", 1)
    assert await supervisor.start(program("one", code + UNTIL_CLOSED)) == "here"
    assert tell.shares == [("one", "loading", 0.5)]
    assert tell.ended == ["one"]
    assert supervisor.children[0].works


async def test_a_child_is_ready_when_it_answers(supervisor: Supervisor, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def answers() -> None:
        if not flag.exists():
            raise ConnectionError("no flag")

    code = f"import sys, pathlib; pathlib.Path({str(flag)!r}).touch(); {UNTIL_CLOSED}"
    await supervisor.start(program("server", code, answers=answers))
    assert flag.exists()


async def test_a_child_that_is_killed_comes_back_with_a_clear_line(supervisor: Supervisor, tell: Lines) -> None:
    await supervisor.start(program("one", READY + UNTIL_CLOSED))
    child = supervisor.children[0]
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.works and child.pid not in (None, first))
    assert tell.lines[0].startswith("one was killed by SIGKILL; starting it again in 0.01 s (log: ")
    assert str(child.log) in tell.lines[0]
    assert tell.lines[1] == "one works again"


async def test_the_line_tells_exit_code_and_last_error(supervisor: Supervisor, tell: Lines, tmp_path: Path) -> None:
    once = tmp_path / "once"
    code = READY + (
        f"import pathlib; once = pathlib.Path({str(once)!r}); again = once.exists(); once.touch()\n"
        f"if not again: sys.stderr.write('the disk is gone\\n'); sys.exit(3)\n{UNTIL_CLOSED}"
    )
    await supervisor.start(program("one", code))
    await until(lambda: "one works again" in tell.lines)
    assert tell.lines[0].startswith("one ended with exit code 3: the disk is gone; starting it again in ")


async def test_a_permanent_mistake_at_the_first_start_ends_it_at_once(supervisor: Supervisor, tell: Lines) -> None:
    code = "import json, sys; print(json.dumps({'failed': 'no model file'}), flush=True); sys.exit(78)"
    with pytest.raises(ChildFailed, match="worker ended with exit code 78: no model file"):
        await supervisor.start(program("worker", code))
    assert tell.lines == []


async def test_a_child_that_never_comes_up_is_given_up(supervisor: Supervisor, tell: Lines) -> None:
    with pytest.raises(ChildFailed, match=r"one ended with exit code 1: nope \(log: "):
        await supervisor.start(program("one", "import sys; sys.exit('nope')"))
    assert len(tell.lines) == 4


async def test_what_cannot_even_be_started_is_said(supervisor: Supervisor) -> None:
    async def launch() -> Launch:
        raise ConfigurationError("the folder is not ours")

    with pytest.raises(ChildFailed, match=r"postgres could not be started: the folder is not ours \(log: "):
        await supervisor.start(Program("postgres", launch))


async def test_a_permanent_mistake_later_is_tried_again(supervisor: Supervisor, tell: Lines, tmp_path: Path) -> None:
    once = tmp_path / "once"
    code = READY + (
        f"import pathlib; once = pathlib.Path({str(once)!r}); again = once.exists(); once.touch()\n"
        f"if not again: sys.exit(78)\n{UNTIL_CLOSED}"
    )
    await supervisor.start(program("one", code))
    await until(lambda: "one works again" in tell.lines)


async def test_children_stop_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    for name in ("first", "second", "third"):
        code = (
            "import signal, sys\n"
            f"def stop(*_):\n open({str(order)!r}, 'a').write({name!r} + ' ')\n sys.exit(0)\n"
            f"signal.signal(signal.SIGTERM, stop)\n{READY}\nsignal.pause()"
        )
        await supervisor.start(program(name, code))
    await supervisor.stop()
    assert order.read_text() == "third second first "
    assert [child.pid for child in supervisor.children] == [None, None, None]


async def test_a_child_that_does_not_stop_is_killed(supervisor: Supervisor, tell: Lines) -> None:
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + UNTIL_CLOSED
    await supervisor.start(program("deaf", code, grace_s=0.1))
    await supervisor.stop()
    assert tell.lines == ["deaf does not stop within 0.1 s; killing it"]
    assert supervisor.children[0].pid is None


async def test_stopping_ends_a_wait_for_the_next_start(tmp_path: Path, tell: Lines) -> None:
    supervisor = Supervisor(tmp_path, tell, backoff=lambda: Backoff(first_s=3600.0, most_s=3600.0))
    await supervisor.start(program("one", READY + UNTIL_CLOSED))
    pid = supervisor.children[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: bool(tell.lines))
    await asyncio.wait_for(supervisor.stop(), DEADLINE_S)


async def test_children_see_that_the_supervisor_is_gone(tmp_path: Path) -> None:
    """Killed with -9, it leaves nobody behind who reads its standard input."""
    code = f"""
import asyncio, sys
from pathlib import Path
from cli.supervisor import Supervisor
from tests.integration.test_supervisor import Lines, READY, UNTIL_CLOSED, program

async def main():
    supervisor = Supervisor(Path({str(tmp_path)!r}), Lines())
    await supervisor.start(program("one", READY + UNTIL_CLOSED))
    print(supervisor.children[0].pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), DEADLINE_S))
    parent.kill()
    await parent.wait()
    await until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_logs_of_earlier_runs_are_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    for run in range(5):
        rotate(log)
        log.write_text(f"run {run}")
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["run 4", "run 3", "run 2", "run 1"]
    assert log.stat().st_mode & 0o777 == 0o600
