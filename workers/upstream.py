"""Asking a pool's backend until it answers: with another key, or after a pause, or not at all.

Where the provider did not begin to answer, it is asked again without anybody noticing. Whatever may have been begun is
counted, so that only a new attempt may go on from there.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from uuid import UUID

from prometheus_client import Counter

from backplane.ports import token_estimate
from backplane.ports.alarm import Alarm
from backplane.ports.key_room import Full, KeyState, RoomUnavailable
from backplane.settings.answer_schemas import Way
from backplane.settings.pools import PoolSettings
from event_schemas.chat import ResponseFormat
from event_schemas.control_plane import ProviderKeySetAside
from event_schemas.payload import PaidBy
from workers.breaker import FAILURES, Breaker
from workers.inference.port import (
    Backend,
    BackendError,
    BackendUnavailable,
    Counted,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    KeyRefused,
    Limits,
    NotServed,
    RateLimited,
    RequestRefused,
)
from workers.keys import Keys, Permit
from workers.shape import Unfit, shaped
from workers.tracing import ProviderCall

logger = logging.getLogger(__name__)

_retries = Counter(
    "parley_upstream_retries_total", "Requests asked again, which the provider did not begin to answer", ["reason"]
)

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_ROOM_POLL_S = 0.5
_RENEW_EVERY_S = 5.0
_SURELY_FITS = 4
"""Times an estimate: where the window has as much, the engine need not count. Half of a window may be the answer's, and
estimates are not off by a factor of two."""


class NoRoom(BackendError):
    """Nobody may be asked now, as ``full`` says, and nothing was said yet."""

    def __init__(self, full: Full) -> None:
        super().__init__("no_room", f"no key has room for {full.wait_s:.1f} s")
        self.full = full


_FAILURES = 2 * FAILURES
"""In a row, with whichever key, that make a pool rest: keys of their own account fail alone before that."""

Leave = Permit | Full | None
"""To ask an upstream: None where it needs none. With a Full it ends at once."""

Announce = Callable[[UUID, ProviderKeySetAside], Awaitable[None]]
"""Is told whose key it is."""


async def _tell_nobody(owner: UUID, news: ProviderKeySetAside) -> None: ...


Paid = Callable[[PaidBy], None]
"""Is told whose key is asked with, before it is; again where another one has to be."""


def _mind_nobody(by: PaidBy) -> None: ...


class Upstream:
    """``keys`` None: an engine of ours, which needs no leave and is asked once. ``announce`` publishes what becomes of
    keys."""

    def __init__(
        self, backend: Backend, pool: PoolSettings, keys: Keys | None = None, announce: Announce | None = None
    ) -> None:
        self._backend = backend
        self.pool = pool
        self._keys = keys
        self._announce = announce or _tell_nobody
        self._breaker = Breaker(_FAILURES)
        self._windows: dict[str, int] = {}

    def shaped(self, request: InferenceRequest, unfit: Unfit | None) -> InferenceRequest:
        """``request``, which has a schema, as this pool's models are to be asked."""
        way = self.way(request.response_format)
        return shaped(request, way, unfit, takes_system="system" in self.pool.capabilities)

    def way(self, wanted: ResponseFormat | None) -> Way:
        """How these models are brought to answer as ``wanted``."""
        return self.pool.way(None if wanted is None else wanted.strict)

    def ring_of(self, tenant_id: UUID) -> str:
        """The ring of keys that this tenant's prompts need room in; one name for all where there are none."""
        return "" if self._keys is None else self._keys.ring_of(tenant_id)

    async def look(self) -> Sequence[KeyState]:
        """The platform's keys as they stand. Raises RoomUnavailable."""
        return () if self._keys is None else await self._keys.look()

    async def permit(self, tenant_id: UUID, tokens: int) -> Leave:
        """Leave to ask for about ``tokens`` tokens; None: none is needed. To be ended by ``answer`` or ``give_back``.

        While the counters are away there is no room.
        """
        rests_s = self._breaker.wait_s(time.monotonic())
        if rests_s:
            return Full(rests_s, failing=True)
        if self._keys is None:
            return None
        try:
            return await self._keys.take(tenant_id, tokens)
        except RoomUnavailable as error:
            logger.warning("room unknown", extra={"action": "room_unknown", "cause": str(error)})
            return Full(_ROOM_POLL_S)

    async def permit_again(self, tenant_id: UUID, tokens: int) -> Leave:
        """As ``permit``, for an attempt that has asked once: waits for room. Raises RequestRefused,
        BackendUnavailable."""
        give_up_at = asyncio.get_running_loop().time() + self.pool.give_up_s
        while isinstance(permit := await self.permit(tenant_id, tokens), Full):
            if permit.refused:
                raise self._none(permit, tenant_id)
            if asyncio.get_running_loop().time() + permit.wait_s > give_up_at:
                # Not NoRoom, as if nothing had been asked: what was used before counts.
                raise BackendUnavailable("no_room", f"no key has room for {permit.wait_s:.1f} s")
            await asyncio.sleep(permit.wait_s)
        return permit

    def is_away(self, full: Full) -> bool:
        """Whether it is no use to wait, for a prompt that may go elsewhere."""
        return full.refused or full.failing or full.wait_s > self.pool.give_up_s

    async def give_back(self, permit: Leave) -> None:
        """Nothing will be asked with it."""
        if isinstance(permit, Permit) and self._keys is not None:
            with suppress(RoomUnavailable):  # its lease runs out
                await self._keys.give_back(permit)

    async def count(self, request: InferenceRequest) -> Counted | None:
        """What the model is given to read; an estimate where its provider alone could count, or where it surely fits.
        None: how large its window is, nobody knows. Raises RequestRefused, BackendUnavailable.
        """
        estimate = token_estimate.input_tokens(request.messages, request.tools, request.response_format)
        window = self._windows.get(request.model)
        if window is not None and estimate * _SURELY_FITS <= window:
            return Counted(estimate, window)
        counted = await self._backend.count(replace(request, model=self.pool.name_at_backend(request.model)))
        if counted is not None:
            self._windows[request.model] = counted.window
        elif self.pool.context_window is not None:
            counted = Counted(estimate, self.pool.context_window)
        return counted

    async def answer(
        self, request: InferenceRequest, tenant_id: UUID, tokens: int, permit: Leave, paid: Paid = _mind_nobody
    ) -> AsyncGenerator[Item]:
        """The pieces of an answer, then how it ended. Raises NoRoom, RequestRefused, BackendUnavailable."""
        if isinstance(permit, Full):
            raise self._none(permit, tenant_id)
        request = replace(request, model=self.pool.name_at_backend(request.model))
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self.pool.give_up_s
        tries = 0
        said = False
        while True:
            if permit is not None:
                paid(permit.paid_by)
            try:
                async with aclosing(self._ask(request, permit)) as items:
                    async for item in items:
                        said = said or not isinstance(item, Limits)
                        yield item
                return
            except NotServed as error:
                if said or self._keys is None:
                    raise
                pause_s = 0.0
                if not isinstance(error, RateLimited | KeyRefused):
                    tries += 1
                    pause_s = pause(tries)
                    if tries >= self.pool.tries or loop.time() + pause_s > give_up_at:
                        raise
                _retries.labels(error.reason).inc()
                logger.info("asking again", extra={"action": "asking_again", "reason": error.reason, "try": tries})
                await asyncio.sleep(pause_s)
            permit = await self._another(tenant_id, tokens)

    async def _another(self, tenant_id: UUID, tokens: int) -> Permit | None:
        permit = await self.permit(tenant_id, tokens)
        if isinstance(permit, Full):
            raise self._none(permit, tenant_id)
        return permit

    def _none(self, full: Full, tenant_id: UUID) -> BackendError:
        if not full.refused:
            return NoRoom(full)
        assert self._keys is not None, "what needs no key is never refused one"
        return self._keys.refusal(tenant_id)

    async def _ask(self, request: InferenceRequest, permit: Permit | None) -> AsyncGenerator[Item]:
        """One request. What it says of the pool counts for all that come after it."""
        self._breaker.begin(time.monotonic())
        call, item = ProviderCall(self.pool.backend, request), None
        answered = False
        try:
            async with aclosing(self._ask_with(permit, request)) as items:
                async for item in items:
                    if not answered:
                        answered = True
                        self._breaker.succeeded()
                        call.answered()
                    yield item
        except (RateLimited, KeyRefused, RequestRefused) as error:
            self._breaker.succeeded()
            call.failed(error)
            raise
        except BackendUnavailable as error:
            self._breaker.failed(time.monotonic())
            call.failed(error)
            raise
        finally:
            self._breaker.given_up()
            call.end(item)

    async def _ask_with(self, permit: Permit | None, request: InferenceRequest) -> AsyncGenerator[Item]:
        """One request. What its key learns from it is told to the others before anything else happens."""
        keys = self._keys
        if keys is None or permit is None:
            async with aclosing(self._timed(request)) as items:
                async for item in items:
                    yield item
            return
        used: int | None = None
        answered = False
        try:
            async with aclosing(self._timed(replace(request, key=permit.key.secret))) as items:
                async for item in items:
                    if not answered:
                        answered = True
                        with suppress(RoomUnavailable):
                            await keys.answered(permit, item if isinstance(item, Limits) else Limits())
                    if isinstance(item, Finished) and item.input_tokens is not None and item.output_tokens is not None:
                        used = item.input_tokens + item.output_tokens
                    yield item
        except RateLimited as error:
            with suppress(RoomUnavailable):
                await keys.has_no_room(permit, error.retry_after_s)
            raise
        except KeyRefused as error:
            with suppress(RoomUnavailable):
                news = await keys.is_no_good(permit, error.reason)
                if news is not None:
                    await self._announce(permit.owner, news)
            raise
        except BackendUnavailable:
            keys.failed(permit)
            raise
        finally:
            if not answered:
                keys.stopped(permit)
            with suppress(RoomUnavailable):
                await keys.done(permit, used)

    async def _timed(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        first_s, gap_s = self.pool.first_token_s, self.pool.gap_s
        loop = asyncio.get_running_loop()
        alarm, deadline = Alarm(), None if first_s is None else loop.time() + first_s
        said = False
        try:
            async with aclosing(self._backend.generate(request)) as items:
                with suppress(StopAsyncIteration):
                    while True:
                        item = await alarm.before(deadline, anext(items))
                        if not isinstance(item, Limits):
                            said = True
                            deadline = None if gap_s is None else loop.time() + gap_s
                        yield item
        except TimeoutError:
            if said:
                raise BackendUnavailable("token_gap_timeout", f"no token came for {gap_s:g} s") from None
            raise BackendUnavailable("first_token_timeout", f"no token came within {first_s:g} s") from None
        finally:
            alarm.stop()

    async def keep(self) -> None:
        """Keep what is taken here from counting as lost, until this task is cancelled."""
        while self._keys is not None:
            await asyncio.sleep(_RENEW_EVERY_S)
            with suppress(RoomUnavailable):
                await self._keys.renew()


def pause(tries: int) -> float:
    """Seconds before try number ``tries + 1``: full jitter (Brooker, "Exponential Backoff And Jitter", AWS, 2015)."""
    return random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tries))


async def whole(answer: AsyncGenerator[Item]) -> tuple[str, Finished]:
    """The text of an answer that nobody follows, and how it ended. Raises as ``Upstream.answer``."""
    said: list[str] = []
    async with aclosing(answer) as items:
        async for item in items:
            if isinstance(item, Finished):
                return "".join(said), item
            if isinstance(item, Delta):
                said.append(item.text)
    raise BackendUnavailable("backend_error", "the backend ended without saying how")
