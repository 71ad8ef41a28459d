"""Submitting a prompt for a request: what any front door does with one, whatever its words are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from backplane.ports.budget import BudgetUnavailable
from backplane.security.principal import Principal
from backplane.web.problems import Problem, not_found, unavailable
from command_api import estimate, limit_answers
from command_api.admission import ModelNotAllowed, PersonaNotAllowed, Refused, admit
from command_api.allowance import LimitExceeded
from command_api.conversations import NoSuch, TakesNoPrompts
from command_api.idempotency import KeyReused
from command_api.ports import CommandPorts, ports_of
from command_api.prompt import PromptBody, content_of
from command_api.submission import ProjectionsLag, Submitted


class RecordsRefusals(APIRoute):
    """Counts what an authenticated caller was refused, also when it never reached the handler."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except (Problem, RequestValidationError) as error:
                principal = getattr(request.state, "principal", None)
                reason = error.type if isinstance(error, Problem) else "invalid-request"
                if principal is not None and not (isinstance(error, Problem) and error.status >= 500):
                    ports_of(request).refusals.count(principal, reason)
                raise

        return handler


async def submitted(
    request: HTTPConnection,
    principal: Principal,
    body: PromptBody,
    idempotency_key: str | None = None,
    traceparent: str | None = None,
) -> Submitted:
    """``body`` as a durable command. Who should know of its limits is warned.

    Raises Problem, and what the bus, the database and the data keys raise.
    """
    ports = ports_of(request)
    try:
        with admission_answers(ports, body.model):
            found = await ports.submission.submit(principal, body, idempotency_key, traceparent)
    except KeyReused:
        raise Problem(
            409, "idempotency-key-reused", "Idempotency key reused", "The key was used before, with another body."
        ) from None
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except TakesNoPrompts as refused:
        state = refused.args[0]
        does = "Resume it first." if state == "suspended" else "Fork it to go on from it."
        raise Problem(
            409,
            f"conversation-{state}",
            f"Conversation {state}",
            f"This conversation takes no prompts: {state}. {does}",
        ) from None
    except ProjectionsLag:
        raise lag() from None
    ports.limit_warnings.notice(found.standings)
    return found


def counted(request: Request, principal: Principal, body: PromptBody) -> int:
    """Tokens that the model would read of ``body``, as far as they are known here; it is not asked. Raises Problem."""
    ports = ports_of(request)
    with admission_answers(ports, body.model):
        admitted = admit(body, ports.settings, principal.models)
    return estimate.input_tokens(content_of(body), ports.settings.pools[admitted.pool], admitted.model)


@contextmanager
def admission_answers(ports: CommandPorts, model: str | None) -> Iterator[None]:
    """Raises Problem in place of what refuses ``model``, of a limit that is in the way, and of limits that cannot be
    counted."""
    try:
        yield
    except PersonaNotAllowed as not_allowed:
        raise Problem(403, not_allowed.type, "Persona not allowed", str(not_allowed)) from None
    except ModelNotAllowed as not_allowed:
        raise Problem(403, not_allowed.type, "Model not allowed", str(not_allowed), model=model) from None
    except Refused as refused:
        raise refusal("The prompt is refused", refused) from None
    except LimitExceeded as limit:
        ports.limit_warnings.notice(limit.exceeded.standings)
        raise limit_answers.problem(limit.exceeded) from None
    except BudgetUnavailable as error:
        raise unavailable("limits", f"{str(error).capitalize()}.") from None


def refusal(title: str, refused: Refused) -> Problem:
    return Problem(422, refused.type, title, str(refused), errors=[{"field": refused.field, "message": str(refused)}])


def lag() -> Problem:
    """Whether something is there cannot be said."""
    return unavailable("projections", "The read models are behind; whether this is there cannot be said yet.")
