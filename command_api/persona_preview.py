"""What a prompt in a persona would say to the model, and how many tokens that is. Nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from backplane.settings import Settings
from command_api import estimate, tokenizer, variables
from command_api.admission import Refused
from command_api.persona import Persona
from command_api.templates import TemplateError
from command_api.variables import VariableError
from event_schemas.chat import ChatMessage
from event_schemas.generation import PromptContent
from event_schemas.personas import Value

SAMPLE_INPUT = "[input]"


@dataclass(frozen=True, slots=True)
class Preview:
    messages: tuple[ChatMessage, ...]
    samples: dict[str, Value]
    """What was filled in for variables that nobody gave."""
    model: str
    tokens: int
    counted_by: Literal["model", "estimate"]


def preview(persona: Persona, settings: Settings, given: Mapping[str, Value], said: str | None) -> Preview:
    """The first prompt of a conversation. ``said`` is what the user writes; None: a sample. Raises Refused."""
    content = persona.content
    model = content.model or settings.default_model
    pool = None if model is None else settings.pool_of(model)
    if model is None or pool is None:
        raise Refused("unknown-model", "body.definition.model", f"There is no model {model!r}.")
    samples = {one.name: variables.sample(one) for one in content.variables if one.name not in given}
    try:
        values = variables.values(content.variables, {**samples, **given}, ())
        said = SAMPLE_INPUT if said is None else said
        written = {field: persona.rendered(field, values, said=said) for field in ("system", "greeting", "prompt")}
    except VariableError as error:
        raise Refused("invalid-variable", f"body.variables.{error.name}", f"{error}.") from None
    except TemplateError as error:
        raise Refused("unfit-for-template", "body.variables", f"{error}.") from None
    prompt = written["prompt"]
    messages = (
        *((ChatMessage(role="system", content=written["system"]),) if written["system"] else ()),
        *((ChatMessage(role="assistant", content=written["greeting"]),) if written["greeting"] else ()),
        ChatMessage(role="user", content=said if prompt is None else prompt),
    )
    whole = PromptContent(messages=messages, tools=content.tools, response_format=content.response_format)
    at = settings.pools[pool]
    is_exact = all(tokenizer.count(at, model, message.text) is not None for message in messages)
    tokens = estimate.input_tokens(whole, at, model)
    return Preview(messages, samples, model, tokens, "model" if is_exact else "estimate")
