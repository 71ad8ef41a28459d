"""The answers of one request, of which some clients want several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from fastapi import Request

from backplane.security.principal import Principal
from command_api.prompt import PromptBody
from gateway import asking
from gateway.asking import Asked, Whole
from gateway.presence import while_there
from gateway.problems import failed
from query_api.assembly import Step


async def ask_all(
    request: Request, principal: Principal, prompts: Sequence[PromptBody], idempotency_key: str | None
) -> list[Asked]:
    """All of them, or none: where one is refused, those before it are stopped. Raises Problem, and as `asking.ask`."""
    asked: list[Asked] = []
    for number, prompt in enumerate(prompts):
        key = idempotency_key if idempotency_key is None or number == 0 else f"{idempotency_key}#{number}"
        try:
            asked.append(await asking.ask(request, principal, prompt, key))
        except BaseException:
            for one in asked:
                await asking.cancel(request, principal, one.generation_id)
            raise
    return asked


async def follow_all(
    request: Request, principal: Principal, asked: Sequence[Asked]
) -> list[AsyncGenerator[Step, None]]:
    return [await asking.follow_asked(request, principal, one) for one in asked]


async def all_whole(request: Request, principal: Principal, asked: Sequence[Asked], *, keeps_on: bool) -> list[Whole]:
    """Their answers. Raises Problem where one did not complete, Gone where the client goes away."""
    async with asking.stopped_without_reader(request, principal, [] if keeps_on else asked):
        streams = await follow_all(request, principal, asked)
        answers = await while_there(request, asyncio.gather(*map(asking.whole, streams)))
    for one in answers:
        if not one.is_complete:
            raise failed(one.detail)
    return answers
