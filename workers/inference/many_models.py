"""Several local models in one pool, which take turns in its memory: each runs in a process of its own, loaded when it
is asked for and unloaded when another one needs the room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from contextvars import Context
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge

from backplane.ports import token_estimate
from backplane.settings import LlmSettings, PoolSettings
from workers.inference.engine_process import EngineProcess
from workers.inference.gguf import ModelError, read_header
from workers.inference.memory_plan import PATIENCE_S, Admit, Load, MemoryPlan, Unload, Waiter
from workers.inference.model_files import common_window, whole_size
from workers.inference.model_memory import in_words, needed_bytes
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    Counted,
    InferenceRequest,
    Item,
    Progress,
    RequestRefused,
)

logger = logging.getLogger(__name__)

_loaded = Gauge("parley_pool_models_loaded", "Local models in memory", ["pool"])
_bytes = Gauge("parley_pool_models_bytes", "Memory that these models take, by what was estimated of them", ["pool"])
_loads = Counter("parley_pool_model_loads_total", "Times that a local model was loaded", ["pool", "model"])


class ManyModels:
    """The ``model_files`` of a pool. ``slots`` generations at a time, of all models together.

    The first model is loaded at start, the others on demand. ``memory_plan`` says in which order they come.
    """

    def __init__(self, name: str, pool: PoolSettings, llm: LlmSettings, *, patience_s: float = PATIENCE_S) -> None:
        self._name = name
        self._pool = pool
        self._llm = llm
        self._patience_s = patience_s
        self._slots = asyncio.Semaphore(pool.slots)
        self._plan = MemoryPlan({}, None)
        self._engines: dict[str, EngineProcess] = {}
        self._turns: dict[Waiter, asyncio.Future[None]] = {}
        self._comings: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._open = False

    async def start(self, progress: Progress) -> None:
        """Check all files, and load the first one. Raises BackendUnavailable: ``model_unusable``, ``memory_limit``, and
        what the engine raises."""
        if self._open:
            raise RuntimeError("the backend is already started")
        try:
            window, needs = await asyncio.to_thread(self._measured)
        except ModelError as error:
            raise BackendUnavailable("model_unusable", f"[pools.{self._name}].model_files: {error}") from error
        self._pool = self._pool.model_copy(update={"context_window": window})
        self._plan = MemoryPlan(needs, self._pool.memory_limit, self._patience_s)
        first = self._plan.ask(next(iter(needs)), self._now())
        self._plan.next(self._now())
        await self._load(first.model, progress)
        self._plan.loaded(first.model, self._now())
        self._plan.leave(first)
        self._open = True
        self._tell()

    def _measured(self) -> tuple[int, dict[str, int]]:
        """The window of all models, and what each needs. Blocks."""
        files = self._pool.model_files
        window = common_window(files.values(), self._pool.context_window or self._llm.context_window)
        return window, {model: self._need(model, path, window) for model, path in files.items()}

    def _need(self, model: str, path: Path, window: int) -> int:
        header = read_header(path)
        pool, limit = self._pool, self._pool.memory_limit
        need = needed_bytes(
            header, whole_size(path, header), window=window, slots=pool.slots, kv_cache_type=pool.kv_cache_type
        )
        if limit is not None and need > limit:
            raise BackendUnavailable(
                "memory_limit",
                f"the model {model!r} ({path}) needs about {in_words(need)} with {pool.slots} slots × {window} tokens, "
                f"and [pools.{self._name}].memory_limit is {in_words(limit)}; raise it to at least that, or give the "
                "pool fewer slots, a smaller context_window, or another kv_cache_type",
            )
        return need

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        model = request.model
        if self._open and model not in self._pool.model_files:
            raise RequestRefused("unknown_model", f"the pool {self._name!r} has no file for the model {model!r}")
        async with self._slots:
            await self._turn(model)
            try:
                async with aclosing(self._engines[model].generate(request)) as items:
                    async for item in items:
                        yield item
            finally:
                self._plan.done(model)
                self._settle()

    async def count(self, request: InferenceRequest) -> Counted:
        """By the engine while it is in memory; loading it only to count would unload another. Else an estimate."""
        engine = self._engines.get(request.model)
        if engine is not None:
            with suppress(BackendUnavailable):  # it was unloaded at this very moment
                return await engine.count(request)
        assert self._pool.context_window is not None, "it was set at start"
        return Counted(token_estimate.input_tokens(request.messages), self._pool.context_window)

    async def close(self) -> None:
        self._open = False
        if self._alarm is not None:
            self._alarm.cancel()
        for waiter in self._turns:
            self._fail(waiter, _closed())
        for coming in self._comings:
            coming.cancel()
        await asyncio.gather(*self._comings, return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))
        _loaded.labels(self._name).set(0)
        _bytes.labels(self._name).set(0)

    async def _turn(self, model: str) -> None:
        """Return once ``model`` is in memory and this one counts as running there."""
        if self._open and model not in self._plan.in_memory:
            # A file that was broken meanwhile unloads nobody.
            await asyncio.to_thread(self._check, model)
        if not self._open:
            raise _closed()
        waiter = self._plan.ask(model, self._now())
        turn = self._turns[waiter] = asyncio.get_running_loop().create_future()
        try:
            self._settle()
            await turn
        except BaseException:
            if not turn.done() or turn.cancelled() or turn.exception():
                self._plan.leave(waiter)
            else:
                self._plan.done(model)
            self._settle()
            raise
        finally:
            del self._turns[waiter]

    def _check(self, model: str) -> None:
        try:
            read_header(self._pool.model_files[model])
        except ModelError as error:
            raise BackendUnavailable("model_unusable", f"the model {model!r} can't be loaded: {error}") from error

    def _settle(self) -> None:
        """Do what the plan says, as far as it says anything now."""
        if not self._open:
            return
        for model in [model for model in self._plan.in_memory if self._engines[model].lost]:
            self._plan.lost(model)
        while (step := self._plan.next(self._now())) is not None:
            match step:
                case Admit(waiter) if self._turns[waiter].cancelled():
                    self._plan.done(waiter.model)
                case Admit(waiter):
                    self._turns[waiter].set_result(None)
                case Load(model):
                    self._begin(self._load_for_waiters(model))
                case Unload(model):
                    self._begin(self._unload(model))
        self._tell()
        self._set_alarm()

    async def _load_for_waiters(self, model: str) -> None:
        try:
            await self._load(model, lambda doing, share: None)
        except Exception as error:
            failure = (
                error
                if isinstance(error, BackendError)
                else BackendUnavailable("engine_failed", f"loading the model {model!r} raised {type(error).__name__}")
            )
            logger.warning(
                "model not loaded", extra={"action": "model_not_loaded", "model": model, "cause": str(failure)}
            )
            for waiter in self._plan.waiting_for(model):
                self._fail(waiter, failure)
            self._plan.gone(model)
        else:
            self._plan.loaded(model, self._now())
        self._settle()

    async def _load(self, model: str, progress: Progress) -> None:
        only = {
            "model_file": self._pool.model_files[model],
            "models": (model,),
            "model_files": {},
            "memory_limit": None,
        }
        engine = EngineProcess(self._name, self._pool.model_copy(update=only), self._llm)
        await engine.start(progress)
        self._engines[model] = engine
        _loads.labels(self._name, model).inc()

    async def _unload(self, model: str) -> None:
        await self._engines[model].close()
        del self._engines[model]
        self._plan.gone(model)
        self._settle()

    def _fail(self, waiter: Waiter, failure: BackendError) -> None:
        self._plan.leave(waiter)
        if not self._turns[waiter].done():
            self._turns[waiter].set_exception(failure)

    def _begin(self, coming: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coming, context=Context())
        self._comings.add(task)
        task.add_done_callback(self._comings.discard)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        at = self._plan.patience_ends()
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_at(at, self._settle) if at is not None and at > loop.time() else None

    def _tell(self) -> None:
        _loaded.labels(self._name).set(len(self._plan.in_memory))
        _bytes.labels(self._name).set(self._plan.bytes)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _closed() -> BackendUnavailable:
    return BackendUnavailable("engine_closed", "the engine is not running; it was closed or never started")
