"""`parley doctor`: what is configured, what answers, what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator

from rich.console import Console
from rich.text import Text

from backplane.settings import LlmSettings, Settings
from cli import accelerators, configuration, machine_checks, model_checks, server_checks
from cli.failures import ConfigurationError
from cli.finding import FAIL, OK, WARN, Finding

_STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}


def run() -> int:
    """Print one line a check; returns 1 if one failed."""
    logging.basicConfig(level=logging.CRITICAL)
    return asyncio.run(_run())


async def _run() -> int:
    console = Console(highlight=False, soft_wrap=True)
    counted: Counter[str] = Counter()
    async for finding in findings():
        counted[finding.state] += 1
        console.print(Text(f"{finding.state:<5}", _STYLES[finding.state]), Text(f"{finding.what}: {finding.detail}"))
        if finding.advice:
            console.print(Text(f"      → {finding.advice}"))
    print(f"{counted[OK]} ok, {counted[WARN]} to look at, {counted[FAIL]} wrong", file=sys.stderr)
    return 1 if counted[FAIL] else 0


async def findings() -> AsyncIterator[Finding]:
    """All checks, one after another. What stands on something that failed is left out."""
    for finding in machine_checks.configuration_files():
        yield finding
    try:
        settings, llm = configuration.load(), configuration.load_llm()
    except ConfigurationError as error:
        yield Finding(FAIL, "settings", str(error), "correct it, then run `parley doctor` again")
        return
    yield Finding(OK, "settings", _summary(settings, llm))
    for finding in machine_checks.data_folder(settings):
        yield finding
    yield machine_checks.free_port(settings)
    async for finding in server_checks.servers(settings):
        yield finding
    for finding in await asyncio.to_thread(model_checks.models, settings, llm):
        yield finding
    for finding in machine_checks.processor():
        yield finding
    for finding in await asyncio.to_thread(lambda: list(accelerators.findings(settings))):
        yield finding


def _summary(settings: Settings, llm: LlmSettings) -> str:
    pools = ", ".join(f"{name} ({pool.backend}, {pool.slots} slots)" for name, pool in settings.pools.items())
    return f"pools {pools}; listens on {settings.host}:{settings.port}; {llm.cpu_threads or 'all but one'} CPU threads"
