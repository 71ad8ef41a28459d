"""The model files of the pools that run a local engine: found, downloaded or put together before workers start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from backplane.settings import LlmSettings, PoolSettings, Settings
from backplane.settings.pools import RUNS_GGUF
from workers.inference.model_files import common_window, find_model
from workers.inference.port import Progress

T = TypeVar("T")

LOCAL_ENGINE = "xllamacpp"


async def resolved(settings: Settings, llm: LlmSettings, progress: Progress) -> Settings:
    """``settings`` with a model file, its name and its window for each local pool that names none.

    A pool with several files gets the window that all of them have. Raises ModelError.
    """
    pools = dict(settings.pools)
    for name, pool in pools.items():
        if pool.model_files:
            wanted = pool.context_window or llm.context_window
            window = await asyncio.to_thread(common_window, pool.model_files.values(), wanted)
            pools[name] = pool.model_copy(update={"context_window": window})
    without = [name for name, pool in pools.items() if _needs_file(pool)]
    if not without:
        return settings.model_copy(update={"pools": pools})
    found = await _in_daemon_thread(
        lambda: find_model(llm, models_dir=settings.models_dir, data_dir=settings.data_dir, progress=progress)
    )
    for name in without:
        pool = pools[name]
        pools[name] = pool.model_copy(
            update={
                "model_file": found.path,
                "models": pool.models or (found.name,),
                "context_window": pool.context_window or found.context_window,
                "license_notice": found.license_notice,
            }
        )
    return settings.model_copy(update={"pools": pools})


async def resolved_for(pool: str, settings: Settings, llm: LlmSettings, progress: Progress) -> Settings:
    """``settings`` with a model file for ``pool`` where that needs one and names none. Raises ModelError."""
    if not _needs_file(settings.pools[pool]):
        return settings
    alone = settings.model_copy(update={"pools": {pool: settings.pools[pool]}})
    found = await resolved(alone, llm, progress)
    return settings.model_copy(update={"pools": settings.pools | found.pools})


def _needs_file(pool: PoolSettings) -> bool:
    return pool.backend in RUNS_GGUF and pool.model_file is None and not pool.model_files


def new_notices(settings: Settings) -> list[str]:
    """Licence notices of the pools' models that this data folder has not shown yet; from now on it has."""
    file: Path = settings.data_dir / "license-notices"
    shown = file.read_text().splitlines() if file.exists() else []
    fresh = [
        notice
        for notice in dict.fromkeys(pool.license_notice for pool in settings.pools.values())
        if notice and notice not in shown
    ]
    if fresh:
        file.write_text("\n".join([*shown, *fresh]) + "\n")
    return fresh


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    # A thread of the loop's pool would keep the process alive through a download that nobody waits for any more.
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            answer: tuple[T | None, BaseException | None] = (None, error)
        else:
            answer = (value, None)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *answer)

    threading.Thread(target=run, name="model-files", daemon=True).start()
    return await outcome
