"""`python -m benches.doors`: what OpenAI's door costs, beside LiteLLM's proxy and beside no proxy at all.

The same provider, clients and loads, one system after the other, in one run. LiteLLM gets an environment of its own, by
uv.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer

from backplane.settings import PoolSettings, Settings
from benches.child import LoadFailed, child, line_of
from benches.door_client import DoorOrder, DoorSaid
from benches.figures import Figures
from benches.installation import Installation, apart
from benches.load import Load, Target
from benches.machine import machine
from benches.parley import running
from benches.processes import Groups, Reading
from benches.server import free_ports
from benches.tables import UNKNOWN, number, table
from cli.child import last_line

LITELLM = "litellm[proxy]==1.106.2"
MODEL = "bench"
_KEY = "sk-bench"
_POOL = "cloud"
_START_S = 180.0
_POLL_S = 0.2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one load through one system."""

    load: Load
    figures: Figures
    cpu_s: dict[str, float]
    """CPU seconds of the window, by process."""
    broken: dict[str, int]


@dataclass(frozen=True, slots=True)
class System:
    """What stands before the provider, and its processes."""

    name: str
    target: Target
    groups: Callable[[], Groups] | None = None


@app.command()
def doors(
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each load is measured.")] = 10.0,
    litellm: Annotated[bool, typer.Option(help="Measure LiteLLM's proxy, too; needs uv.")] = True,
    streams: Annotated[int, typer.Option(min=1, max=512, help="Streams at a time of the busiest load.")] = 256,
) -> None:
    """First token, requests, tokens and CPU of OpenAI's door, of LiteLLM's proxy, and of neither: tables to print."""
    if litellm and shutil.which("uv") is None:
        raise typer.BadParameter("LiteLLM is installed by uv, which is not there; give --no-litellm")
    loads = (
        Load(clients=1, tokens=20, delay_s=0.02, seconds=seconds),
        Load(clients=32, tokens=20, delay_s=0, seconds=seconds),
        Load(clients=streams, tokens=250, delay_s=0.02, seconds=seconds),
    )
    with apart() as folder:
        found = asyncio.run(_measure(folder, loads, with_litellm=litellm))
    here = machine()
    typer.echo(f"{here.processor}, {here.cores} cores; {seconds:g} s a load; {LITELLM}\n")
    for place, load in enumerate(loads):
        typer.echo("\n".join(_table(load, {name: measured[place] for name, measured in found.items()})) + "\n")
    typer.echo("\n".join(_processes(loads, found["Parley"])) + "\n")
    broken = {name: one.broken for name, measured in found.items() for one in measured if one.broken}
    for name, how in broken.items():
        typer.echo(f"answers that did not come whole, {name}: {how}", err=True)
    raise typer.Exit(1 if "Parley" in broken else 0)


async def _measure(folder: Path, loads: tuple[Load, ...], *, with_litellm: bool) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    async with _upstream() as port:
        base_url = f"http://127.0.0.1:{port}/v1"
        found["direct"] = await _all(System("direct", Target(host="127.0.0.1", port=port, key=_KEY)), loads)
        installation = _Asking.at(base_url, folder, max(load.clients for load in loads))
        async with running(installation) as parley:
            system = System("Parley", await parley.target(), parley.groups)
            found["Parley"] = await _all(system, loads)
            if parley.deaths:
                raise LoadFailed("; ".join(parley.deaths))
        if with_litellm:
            async with _litellm(folder, base_url) as (target, pid):
                groups = Groups({"litellm": psutil.Process(pid)})
                found["LiteLLM"] = await _all(System("LiteLLM", target, lambda: groups), loads)
    return found


@dataclass(frozen=True, slots=True)
class _Asking(Installation):
    """A Parley that asks the bench's provider."""

    pool: dict[str, Any]
    """As it is written, since settings do not show their keys."""

    @classmethod
    def at(cls, base_url: str, folder: Path, slots: int) -> _Asking:
        pool = {"backend": "openai", "base_url": base_url, "models": [MODEL], "keys": [_KEY], "slots": slots}
        pools = {_POOL: PoolSettings.model_validate(pool)}
        return cls(Settings(data_dir=folder / "data", port=0, pools=pools), pool)

    @property
    def environment(self) -> dict[str, str]:
        return {**Installation(self.settings).environment, "PARLEY_POOLS": json.dumps({_POOL: self.pool})}


@asynccontextmanager
async def _upstream() -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", "benches.chat_upstream", stdout=PIPE)
    try:
        yield int(await line_of(process))
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _litellm(folder: Path, base_url: str) -> AsyncIterator[tuple[Target, int]]:
    """Its address and its process. Raises LoadFailed."""
    config, log, (port,) = folder / "litellm.json", folder / "litellm.log", free_ports(1)
    parameters = {"model": f"openai/{MODEL}", "api_base": base_url, "api_key": _KEY}
    key = "sk-" + secrets.token_hex(32)  # it does not start without one
    models = [{"model_name": MODEL, "litellm_params": parameters}]
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": key}}))
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *("uv", "tool", "run", "--python", sys.executable, "--from", LITELLM, "litellm"),
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
            stdin=DEVNULL,
            stdout=said,
            stderr=STDOUT,
            start_new_session=True,
        )
    try:
        await _answers(f"http://127.0.0.1:{port}/health/liveliness", process, log)
        yield Target(host="127.0.0.1", port=port, key=key), process.pid
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).is_success:
                    return
            if process.returncode is not None or time.monotonic() > deadline:
                raise LoadFailed(f"LiteLLM did not come up; it said last: {last_line(log)}")
            await asyncio.sleep(_POLL_S)


async def _all(system: System, loads: tuple[Load, ...]) -> list[Measured]:
    return [await _one(system, load) for load in loads]


async def _one(system: System, load: Load) -> Measured:
    typer.echo(f"{system.name}: {load.name}", err=True)
    readings: dict[str, Reading] = {}
    groups = None if system.groups is None else system.groups()
    async with child("benches.door_client", DoorOrder(load=load, target=system.target, model=MODEL)) as process:
        while True:
            said = DoorSaid.model_validate_json(await line_of(process))
            if said.figures is not None:
                used = {} if groups is None else readings["closed"].since(readings["opened"])
                return Measured(load, said.figures, used, said.broken)
            if groups is not None and said.what is not None:
                readings[said.what] = groups.read()


def _table(load: Load, found: dict[str, Measured]) -> list[str]:
    rows = []
    for name, one in found.items():
        figures, first = one.figures, one.figures.first_token
        cpu_s = sum(one.cpu_s.values())
        wanted = load.wanted_tokens_per_s
        rows.append(
            (
                name,
                UNKNOWN if first is None else number(first.p50),
                UNKNOWN if first is None else number(first.p99),
                number(figures.requests_per_s),
                number(figures.tokens_per_s) + ("" if wanted is None else f" ({figures.tokens_per_s / wanted:.0%})"),
                UNKNOWN if not cpu_s or not figures.requests else number(cpu_s / figures.requests * 1000),
            )
        )
    head = ("", "first token p50 (ms)", "p99 (ms)", "requests/s", "tokens/s", "CPU a request (ms)")
    return table(f"{load.name}, answers of {load.tokens} tokens", head, rows, words=1)


def _processes(loads: tuple[Load, ...], measured: list[Measured]) -> list[str]:
    rows = [
        (name, *(number(one.cpu_s[name] / max(one.figures.requests, 1) * 1000) for one in measured))
        for name in measured[0].cpu_s
    ]
    return table("Parley's CPU, ms a request", ("", *(load.name for load in loads)), rows, words=1)


if __name__ == "__main__":
    app()
