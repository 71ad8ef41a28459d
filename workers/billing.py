"""Who served an attempt, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from backplane.settings.pools import KEYED, PoolSettings
from backplane.settings.prices import PriceTable
from event_schemas.payload import PaidBy, Served, Usage


class Billing:
    """``pools`` are all of the installation: what one worker lost, a worker of another pool may have to record."""

    def __init__(self, pools: Mapping[str, PoolSettings], prices: PriceTable) -> None:
        self._pools = pools
        self._prices = prices

    def served(self, pool: str, model: str) -> Served | None:
        """By whom ``model`` is served in ``pool``; None where the settings have no such pool any more."""
        settings = self._pools.get(pool)
        if settings is None:
            return None
        return Served(pool=pool, backend=settings.backend, model=settings.name_at_backend(model))

    def paid_by(self, pool: str) -> PaidBy | None:
        """Who pays for whatever runs in ``pool``; None where that is up to the key, or the pool is gone."""
        settings = self._pools.get(pool)
        return None if settings is None or settings.backend in KEYED else "platform"

    def priced(self, usage: Usage, served: Served | None) -> Usage:
        """``usage`` with what it costs, as far as that is known."""
        if not usage.input_tokens and not usage.output_tokens:
            return usage.model_copy(update={"cost_usd": Decimal(0)})
        if served is None:
            return usage
        cost = self._prices.cost(model=served.model, backend=served.backend, usage=usage, at=datetime.now(UTC))
        return usage.model_copy(update={"cost_usd": cost})
