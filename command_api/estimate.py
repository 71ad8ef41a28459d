"""What a prompt will use, before anybody has counted it. How far that is off on a sample: docs/how-to/limits.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from backplane.ports import token_estimate
from backplane.ports.budget import nano_usd
from backplane.settings import Settings, SourceSettings
from backplane.settings.pools import KEYED, PoolSettings
from backplane.settings.prices import PriceTable
from command_api import tokenizer
from event_schemas.generation import PromptContent
from event_schemas.limits import Reserved
from event_schemas.payload import Usage
from event_schemas.sources import TextWish


class Unpriced(Exception):
    """Nobody knows what ``model`` costs."""

    def __init__(self, model: str) -> None:
        super().__init__(f"there is no price of {model!r}")
        self.model = model


class Estimate(NamedTuple):
    input_tokens: int
    """Of what the prompt adds to its conversation, for the model that it asks."""
    reserved: Reserved


def input_tokens(content: PromptContent, pool: PoolSettings, model: str) -> int:
    """Of what a prompt adds to its conversation, for ``model`` of ``pool``."""

    def count(text: str) -> int:
        counted = tokenizer.count(pool, model, text)
        return token_estimate.text_tokens(text) if counted is None else counted

    return token_estimate.input_tokens(content.messages, content.tools, content.response_format, count=count)


def _sources_tokens(content: PromptContent, settings: SourceSettings) -> int:
    """Of what will be put before the question: how long that is, nobody knows before it is fetched."""
    lengths = (len(one.text) if isinstance(one, TextWish) else settings.characters for one in content.sources)
    return int(min(sum(lengths), settings.all_characters) * token_estimate.TOKENS_A_LETTER)


def estimated(
    content: PromptContent,
    places: Sequence[tuple[str, str]],
    max_tokens: int | None,
    *,
    said_before: int,
    settings: Settings,
    prices: PriceTable,
    priced: bool,
) -> Estimate:
    """What a prompt is to hold of its limits; ``said_before`` are the tokens of the conversation that it goes on.

    Of all ``places``, (pool, model), that may serve it, the dearest counts; the first one is asked first. Raises
    Unpriced where it matters (``priced``) and one's provider has no price; local engines without a price cost nothing.
    """
    added = [input_tokens(content, settings.pools[pool], model) for pool, model in places]
    tokens, nano = 0, 0
    for (pool_name, model), adds in zip(places, added, strict=True):
        pool = settings.pools[pool_name]
        asked = said_before + adds + _sources_tokens(content, settings.sources)
        answer = max_tokens or pool.answer_tokens
        of_model = asked + answer
        if pool.context_window is not None:
            of_model = min(of_model, pool.context_window)
        tokens = max(tokens, of_model)
        cost = prices.cost(
            model=pool.name_at_backend(model),
            backend=pool.backend,
            usage=Usage(input_tokens=min(asked, of_model), output_tokens=min(answer, of_model), source="estimated"),
            at=datetime.now(UTC),
        )
        if cost is None and priced and pool.backend in KEYED:
            raise Unpriced(model)
        nano = max(nano, nano_usd(cost or Decimal(0)))
    return Estimate(added[0], Reserved(tokens=tokens, nano_usd=nano))
