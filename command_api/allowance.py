"""May this prompt be paid for, and is it its turn? What it may use is reserved in all of its limits, or in none."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from prometheus_client import Counter

from backplane.ports.budget import (
    Admitted,
    Budget,
    BudgetUnavailable,
    Exceeded,
    Reservation,
    Standing,
    scopes,
)
from backplane.ports.database import Database
from backplane.settings import Settings
from backplane.settings.prices import PriceTable
from command_api import estimate
from command_api.admission import Refused
from command_api.estimate import Estimate
from command_api.known_limits import KnownLimits, Limited
from event_schemas.generation import PromptContent, SubmitPrompt
from event_schemas.limits import Reserved

logger = logging.getLogger(__name__)

_refused = Counter("parley_limit_refusals_total", "What a limit refused", ["dimension", "kind"])

_CERTAIN_S = 30.0
"""After its time to publish, until the record is asked what became of a prompt: longer than a bus holds one back."""


class LimitExceeded(Exception):
    """A limit is in the way; nothing was reserved."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__(f"{exceeded.by.kind} of {exceeded.by.scope.dimension} is used up")
        self.exceeded = exceeded


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks whom. ``places`` are the pools and models that may serve it, the first one first."""

    generation_id: UUID
    user_id: UUID | None
    key_id: UUID
    places: tuple[tuple[str, str], ...]
    max_tokens: int | None
    persona: str | None = None

    @classmethod
    def of(cls, prompt: SubmitPrompt) -> Asked:
        places = ((prompt.pool, prompt.model), *((one.pool, one.model) for one in prompt.fallbacks))
        persona = None if prompt.persona is None else prompt.persona.name
        return cls(prompt.generation_id, prompt.user_id, prompt.key_id, places, prompt.parameters.max_tokens, persona)


def without_price(model: str) -> Refused:
    return Refused(
        "unknown-price",
        "body.model",
        f"A limit of money holds, and {model} has no price. An operator adds it to `prices_file`.",
    )


class Allowance:
    def __init__(
        self, budget: Budget, limits: KnownLimits, database: Database, prices: PriceTable, settings: Settings
    ) -> None:
        self._budget = budget
        self._limits = limits
        self._database = database
        self._prices = prices
        self._settings = settings

    async def counts_money(self, tenant_id: UUID, asked: Asked) -> bool:
        """Whether a limit of money holds. Raises DatabaseUnavailable."""
        limited = await self._limited(tenant_id, asked)
        return any(one.usd_per_day is not None or one.usd_per_month is not None for _, one in limited)

    async def estimated(self, tenant_id: UUID, asked: Asked, content: PromptContent, *, said_before: int) -> Estimate:
        """What the prompt is to reserve. Raises Refused, DatabaseUnavailable."""
        money = await self.counts_money(tenant_id, asked)
        try:
            return estimate.estimated(
                content,
                asked.places,
                asked.max_tokens,
                said_before=said_before,
                settings=self._settings,
                prices=self._prices,
                priced=money,
            )
        except estimate.Unpriced as unpriced:
            raise without_price(unpriced.model) from None

    async def reserve(
        self, tenant_id: UUID, asked: Asked, reserved: Reserved, *, publish_s: float | None = None
    ) -> Admitted:
        """Reserve that. Reserving the same prompt again costs nothing. Within ``publish_s`` it will be on the bus;
        None: as prompts are.

        Raises LimitExceeded, BudgetUnavailable, DatabaseUnavailable.
        """
        limited = await self._limited(tenant_id, asked)
        wanted = Reservation(asked.generation_id, tenant_id, reserved.tokens, reserved.nano_usd)
        on_the_bus_s = self._settings.limits.publish_s if publish_s is None else publish_s
        try:
            answer = await self._budget.reserve(wanted, limited, publish_s=on_the_bus_s + _CERTAIN_S)
        except BudgetUnavailable as error:
            if self._settings.limits.uncounted == "refuse":
                raise
            logger.warning("admitted uncounted: %s", error, extra={"action": "admitted_uncounted"})
            return Admitted(())
        if isinstance(answer, Exceeded):
            _refused.labels(answer.by.scope.dimension, answer.by.kind).inc()
            raise LimitExceeded(answer)
        return answer

    async def reserve_again(self, tenant_id: UUID, prompt: SubmitPrompt) -> tuple[Standing, ...]:
        """For a prompt that may be published already. Raises as ``reserve``."""
        try:
            answer = await self.reserve(tenant_id, Asked.of(prompt), prompt.reserved or Reserved(tokens=0, nano_usd=0))
        except LimitExceeded:
            if await self._recorded(tenant_id, prompt.generation_id):
                return ()
            raise
        if answer.fresh and await self._recorded(tenant_id, prompt.generation_id):
            # It has ended, so its limits were settled.
            await self.release(prompt.generation_id)
        return answer.standings

    async def admits(self, tenant_id: UUID, prompt: SubmitPrompt) -> bool:
        """Whether a prompt of Parley's own may run, which nobody waits for; what it may use is reserved then.

        Raises DatabaseUnavailable.
        """
        try:
            await self.reserve_again(tenant_id, prompt)
        except (LimitExceeded, BudgetUnavailable) as why:
            about = {"action": "background_not_admitted", "purpose": prompt.purpose, "cause": str(why)}
            logger.info("a prompt beside a conversation is left out", extra=about)
            return False
        return True

    async def release(self, generation_id: UUID) -> None:
        """It was not published. Where that cannot be counted now, the record is asked later."""
        with suppress(BudgetUnavailable):
            await self._budget.release(generation_id)

    async def _limited(self, tenant_id: UUID, asked: Asked) -> Limited:
        model = asked.places[0][1]
        return await self._limits.of(tenant_id, scopes(tenant_id, asked.user_id, asked.key_id, model, asked.persona))

    async def _recorded(self, tenant_id: UUID, generation_id: UUID) -> bool:
        async with self._database.tenant(tenant_id) as session:
            found = await session.one("SELECT 1 FROM read_models.generations WHERE id = :id", id=generation_id)
        return found is not None
