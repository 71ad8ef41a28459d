"""`python -m benches.key_pool`: prompts over provider keys with limits, through several workers, while the provider
fails in every way.

The provider is the tests' server, a process of its own; its ledger says what each key was asked and what was billed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.progress import Progress

from backplane.settings import PoolSettings, Settings
from backplane.wiring.operations import operator_bus
from benches.installation import Installation, apart
from benches.lag import caught_up
from benches.machine import machine
from benches.more_workers import more_workers
from benches.parley import running
from benches.tables import UNKNOWN, number, table
from event_schemas.topics import WORKERS, all_topics, commands

POOL = "cloud"
KEYS = ("one", "two", "three", "four")
WORKERS_BESIDE = 2
MIX = {"429": 0.03, "500": 0.03, "cut": 0.03, "hang": 0.01, "stall": 0.01, "cut_early": 0.01}
"""Shares of the requests that go wrong, and how."""

_PATIENCE_S = 3.0
"""Longest wait for a token, so that a run does not consist of waiting for hung requests."""

_POSTING = 8
_POLL_S = 0.2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def key_pool(
    prompts: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 2000,
    per_minute: Annotated[int, typer.Option(min=1, help="Requests a minute that each of the four keys allows.")] = 600,
    words: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 5,
) -> None:
    """How much of what four keys allow three workers use, and whether anything was lost, doubled or asked too often."""
    if Path("tests/providers").is_dir() is False:
        raise typer.BadParameter("run this in Parley's source folder: it needs tests/providers")
    source = Path.cwd()
    with apart() as folder:
        rows, wrong = asyncio.run(_measure(source, folder, prompts, per_minute, words))
    here = machine()
    typer.echo(
        f"{here.processor}, {here.cores} cores; {prompts:,} prompts, {len(KEYS)} keys of {per_minute} requests a minute"
        f", {WORKERS_BESIDE + 1} workers; of all requests {sum(MIX.values()):.0%} fail\n"
    )
    typer.echo("\n".join(table("A pool of keys", ("", ""), rows, words=1)))
    for line in wrong:
        typer.echo(f"wrong: {line}", err=True)
    raise typer.Exit(1 if wrong else 0)


@dataclass(frozen=True, slots=True)
class _Keyed(Installation):
    pool: dict[str, Any]
    """As it is written, since settings do not show their keys."""

    @classmethod
    def asking(cls, base_url: str, folder: Path, per_minute: int) -> _Keyed:
        pool = {
            "backend": "openai",
            "base_url": base_url,
            "models": ["gpt-4o-mini"],
            "keys": list(KEYS),
            "requests_per_minute": per_minute,
            "first_token_s": _PATIENCE_S,
            "gap_s": _PATIENCE_S,
        }
        pools = {POOL: PoolSettings.model_validate(pool)}
        return cls(Settings(data_dir=folder / "data", port=0, pools=pools), pool)

    @property
    def environment(self) -> dict[str, str]:
        common = Installation(self.settings).environment
        return {**common, "PARLEY_POOLS": json.dumps({POOL: self.pool}), "PARLEY_WORKER__MAX_ATTEMPTS": "20"}


@asynccontextmanager
async def _provider(source: Path, per_minute: int, words: int, seed: int) -> AsyncIterator[tuple[str, int]]:
    """Its address, and its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.providers", "--requests", str(per_minute), "--words", str(words)),
        *(word for key in KEYS for word in ("--key", key)),
        *(word for fault, share in MIX.items() for word in ("--mix", f"{fault}={share}")),
        *("--seed", str(seed)),
        cwd=source,
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())["url"], process.pid
    finally:
        process.terminate()
        await process.wait()


async def _measure(
    source: Path, folder: Path, prompts: int, per_minute: int, words: int
) -> tuple[list[tuple[str, str]], list[str]]:
    seed = random.randrange(2**32)
    wrong: list[str] = []
    async with _provider(source, per_minute, words, seed) as (url, pid):
        installation = _Keyed.asking(f"{url}/v1", folder, per_minute)
        async with running(installation) as parley:
            target = await parley.target()
            async with (
                more_workers(installation, POOL, WORKERS_BESIDE, wrong),
                operator_bus(installation.settings) as bus,
                httpx.AsyncClient(
                    base_url=f"http://{target.host}:{target.port}", headers={"Authorization": f"Bearer {target.key}"}
                ) as client,
            ):
                groups = parley.groups().with_("provider", pid)
                for place, worker in enumerate(_workers_beside(), start=2):
                    groups = groups.with_(f"worker {place}", worker)
                before = groups.read()
                began = time.monotonic()
                with Progress(console=Console(stderr=True)) as progress:
                    task = progress.add_task("prompts answered", total=prompts)
                    posting = asyncio.create_task(_post(client, prompts, seed))
                    left = prompts
                    while left:
                        await asyncio.sleep(_POLL_S)
                        if posting.done():
                            left = sum(await bus.backlog(commands(POOL), WORKERS))
                            progress.update(task, completed=prompts - left)
                took = time.monotonic() - began
                used = groups.read().since(before)
                await caught_up(bus, all_topics([POOL]))
                generations = await _ended(client, posting.result())
                (usage,) = (await _get(client, "/v1/usage?group_by=model"))["groups"]
            wrong += parley.deaths
        async with httpx.AsyncClient(base_url=url) as client:
            ledger = await _get(client, "/_ledger")
    entries = [entry for key in KEYS for entry in ledger[key]["asked"]]
    wrong += _faults(prompts, generations, usage, entries)
    ask_times = sorted(entry["at"] for entry in entries)
    asking_s = ask_times[-1] - ask_times[0]
    allowed = per_minute * len(KEYS)
    minutes = int(asking_s / 60)
    within = sum(at < ask_times[0] + 60 * minutes for at in ask_times)
    rows = [
        ("requests to the provider", f"{len(entries):,}"),
        ("seconds from the first prompt to the last answer", number(took)),
        ("requests/s, from the first request to the last", number(len(entries) / asking_s)),
        ("of the sum of the keys' limits", f"{len(entries) / asking_s * 60 / allowed:.0%}"),
        (
            f"in its {minutes} whole minutes, of what the keys allow then",
            f"{within / minutes / allowed:.1%}" if minutes else UNKNOWN,
        ),
        ("CPU of one prompt (ms), all processes", number(sum(used.values()) / prompts * 1000)),
        *((f"- {name}", number(seconds / prompts * 1000)) for name, seconds in sorted(used.items())),
        ("seed", str(seed)),
    ]
    return rows, wrong


def _workers_beside() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "worker" in child.cmdline()]


async def _post(client: httpx.AsyncClient, prompts: int, seed: int) -> list[str]:
    """Posts them all; returns the URLs of their generations."""
    chance = random.Random(seed)
    # A text of four letters a word, so that an estimate meets what the provider counts.
    texts = iter([" ".join(["abc"] * chance.randint(1, 30)) for _ in range(prompts)])
    accepted: list[str] = []

    async def post_on() -> None:
        for text in texts:
            response = await client.post("/v1/prompts", json={"input": text})
            response.raise_for_status()
            accepted.append(response.json()["generation_url"])

    await asyncio.gather(*(post_on() for _ in range(_POSTING)))
    return accepted


async def _ended(client: httpx.AsyncClient, urls: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    left = iter(urls)

    async def get_on() -> None:
        for url in left:
            found.append(await _get(client, url))

    await asyncio.gather(*(get_on() for _ in range(_POSTING)))
    return found


async def _get(client: httpx.AsyncClient, url: str) -> Any:
    response = await client.get(url)
    response.raise_for_status()
    return response.json()


def _faults(
    prompts: int, generations: list[dict[str, Any]], usage: dict[str, Any], entries: list[dict[str, Any]]
) -> list[str]:
    """Why the figures are not to be believed."""
    wrong = []
    how = Counter(one["status"] for one in generations)
    if how != {"completed": prompts}:
        wrong.append(f"not every prompt was answered: {dict(how)}")
    over = sum(entry["outcome"] == "over_limit" for entry in entries)
    if over:
        wrong.append(f"{over} requests were over the limit of their key")
    finished = sum(entry["outcome"] == "finished" for entry in entries)
    if finished != prompts:
        wrong.append(f"{finished} answers were paid for in full, {prompts} were asked for")
    billed = sum(entry["input_tokens"] for entry in entries)
    if usage["input_tokens"] != billed:
        wrong.append(f"{usage['input_tokens']} input tokens are in the usage, the provider bills {billed}")
    return wrong


if __name__ == "__main__":
    app()
