"""May this prompt be accepted? Decides on what is known before anything is published; does no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from backplane.settings import Settings
from backplane.settings.answer_schemas import EXPRESSIBLE
from backplane.settings.capabilities import Capability
from backplane.settings.pools import PoolSettings
from command_api.answer_schema import AnswerSchema, SchemaFault
from command_api.prompt import PromptBody
from event_schemas.generation import Fallback

_MOST_BYTES_A_TOKEN = 16
"""Vocabularies give far fewer bytes a token on average over any real text, so this never refuses what would fit. The
worker's engine counts exactly, and ends what does not fit as failed with ``context_length_exceeded``."""

_SCHEMA = "body.response_format.json_schema"

_PARAMETERS: dict[str, Capability] = {
    "temperature": "sampling",
    "top_p": "sampling",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "seed": "seed",
    "reasoning_effort": "reasoning_effort",
    "logprobs": "logprobs",
}


class Refused(Exception):
    """``type`` is stable; ``field`` is where the matter is. The message carries no prompt text."""

    def __init__(self, type: str, field: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.field = field


class PersonaNotAllowed(Refused):
    """The caller's key is limited to other personas, or the persona to other users."""


class ModelNotAllowed(Refused):
    """The caller's key is limited to other models."""


@dataclass(frozen=True, slots=True)
class Admitted:
    model: str
    pool: str
    fallbacks: tuple[Fallback, ...] = ()
    """Those that can do what is asked, the best first."""


def admit(
    body: PromptBody,
    settings: Settings,
    allowed: Collection[str] | None = None,
    fallbacks: Sequence[str] = (),
) -> Admitted:
    """Which model and pool take ``body``; only ``allowed`` models, where that is given. Raises Refused.

    ``fallbacks`` are models in place of those that the pool falls back to.
    """
    model = body.model or settings.default_model
    if model is None:
        raise Refused("unknown-model", "body.model", "No model is configured: name `models` of a pool in the settings.")
    name = settings.pool_of(model)
    if name is None:
        known = ", ".join(sorted(one for pool in settings.pools.values() for one in pool.model_names))
        raise Refused("unknown-model", "body.model", f"There is no model {model!r}. There are: {known}.")
    if allowed is not None and model not in allowed:
        raise ModelNotAllowed(
            "model-not-allowed",
            "body.model",
            f"This key may not ask {model!r}. It may ask: {', '.join(sorted(allowed)) or 'none'}.",
        )
    written = body.written()
    if len(written) > settings.limits.messages:
        raise Refused(
            "too-many-messages", "body.messages", f"{len(written)} messages, the limit is {settings.limits.messages}."
        )
    metadata_bytes = sum(len(key.encode()) + len(value.encode()) + 6 for key, value in body.metadata.items())
    if metadata_bytes > settings.limits.metadata_bytes:
        raise Refused(
            "metadata-too-large",
            "body.metadata",
            f"The metadata has {metadata_bytes} bytes, the limit is {settings.limits.metadata_bytes}.",
        )
    schema = _schema(body)
    _check(body, schema, model, settings.pools[name])
    places = _places(fallbacks, settings) if fallbacks else settings.fallbacks_of(name)
    return Admitted(model, name, tuple(_fallbacks(body, schema, model, name, settings, allowed, places)))


def _places(models: Sequence[str], settings: Settings) -> Iterator[tuple[str, str]]:
    for model in models:
        if (pool := settings.pool_of(model)) is not None:
            yield pool, model


def _schema(body: PromptBody) -> AnswerSchema | None:
    """Of the answer, where one is asked for. Raises Refused."""
    if body.response_format is None or body.response_format.json_schema is None:
        if body.repairs is not None:
            raise Refused("invalid-request", "body.repairs", "An answer without a JSON schema has nothing to repair.")
        return None
    try:
        return AnswerSchema(body.response_format.json_schema)
    except SchemaFault as fault:
        raise Refused("invalid-schema", _SCHEMA, str(fault)) from None


def _fallbacks(
    body: PromptBody,
    schema: AnswerSchema | None,
    model: str,
    pool: str,
    settings: Settings,
    allowed: Collection[str] | None,
    places: Iterable[tuple[str, str]],
) -> Iterator[Fallback]:
    seen = {(pool, model)}
    for place in places:
        if place in seen or (allowed is not None and place[1] not in allowed):
            continue
        seen.add(place)
        with suppress(Refused):
            _check(body, schema, place[1], settings.pools[place[0]])
            yield Fallback(pool=place[0], model=place[1])


def _check(body: PromptBody, schema: AnswerSchema | None, model: str, pool: PoolSettings) -> None:
    """Raises Refused where ``model`` of ``pool`` cannot do what ``body`` asks for."""
    written = body.written()
    for capability, field, what in _asked_for(body):
        if capability not in pool.capabilities:
            raise Refused("unsupported-by-model", field, f"{model} does not take {what}.")
    if schema is not None and body.response_format is not None:
        try:
            schema.check(EXPRESSIBLE[pool.way(body.response_format.strict)])
        except SchemaFault as fault:
            raise Refused("unsupported-by-model", _SCHEMA, f"{model} does not take this schema: {fault}") from None
    window = pool.context_window
    if window is not None:
        least_tokens = sum(len(message.text.encode()) for message in written) // _MOST_BYTES_A_TOKEN
        if least_tokens >= window:
            raise Refused(
                "context-length-exceeded",
                "body.messages" if body.input is None else "body.input",
                f"The prompt has at least {least_tokens} tokens; {model} takes {window}, its answer included.",
            )
        if body.parameters.max_tokens is not None and body.parameters.max_tokens >= window:
            raise Refused(
                "context-length-exceeded",
                "body.parameters.max_tokens",
                f"max_tokens must be below the window of {model}, which is {window}.",
            )


def _asked_for(body: PromptBody) -> Iterator[tuple[Capability, str, str]]:
    """What the model has to be able to do, where the prompt asks for it, and what that is in words."""
    written = body.written()
    if any(message.role == "system" and message.content for message in written):
        yield "system", "body.messages" if body.system is None else "body.system", "instructions of the system"
    if body.tools:
        yield "tools", "body.tools", "tools"
    if any(message.role == "tool" or message.tool_calls for message in written):
        yield "tools", "body.messages", "tool calls and what tools said"
    if any(message.images for message in written):
        yield "images", "body.messages", "images"
    if body.response_format is not None and body.response_format.json_schema is None:
        yield "json", "body.response_format", "a response format without a schema"
    for name, value in body.parameters:
        if name in _PARAMETERS and value is not None and value is not False:
            yield _PARAMETERS[name], f"body.parameters.{name}", f"`{name}`"
