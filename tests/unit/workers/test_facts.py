"""Who paid for an attempt, as the events of a worker say it."""

from __future__ import annotations

from uuid import UUID

import pytest

from backplane.settings.pools import PoolSettings
from backplane.settings.prices import PriceTable
from event_schemas.generation import AttemptLost, GenerationCancelled
from tests.integration.prompts import envelope, scripted
from workers.billing import Billing
from workers.deltas import Deltas
from workers.facts import Facts

TENANT = UUID(int=7)


def facts(pool: str) -> Facts:
    prompt = scripted(pool=pool)
    pools = {"engine": PoolSettings(backend="scripted"), "cloud": PoolSettings(backend="openai", models=("m",))}
    return Facts(envelope(prompt, TENANT), prompt, "w", Billing(pools, PriceTable(())))


def said(told: Facts, attempt: int) -> list[str | None]:
    lost, ended = told.lost(attempt, 1).data, told.cancelled(attempt, Deltas()).data
    assert isinstance(lost, AttemptLost)
    assert isinstance(ended, GenerationCancelled)
    return [lost.paid_by, ended.paid_by]


@pytest.mark.parametrize(("pool", "paid_by"), [("engine", "platform"), ("cloud", None), ("gone", None)])
def test_what_needs_no_key_is_paid_by_the_platform(pool: str, paid_by: str | None) -> None:
    assert said(facts(pool), 1) == [paid_by] * 2


def test_whose_key_was_asked_with_is_known_of_that_attempt_only() -> None:
    told = facts("cloud")
    told.paid(1, "platform")
    told.paid(1, "tenant")
    assert (said(told, 1), said(told, 2)) == (["tenant"] * 2, [None] * 2)


def test_what_never_ran_was_paid_by_nobody() -> None:
    ended = facts("engine").cancelled(1, None).data
    assert isinstance(ended, GenerationCancelled)
    assert (ended.served, ended.paid_by) == (None, None)
