"""Which persona a prompt is asked as, and the prompt that it then stands for."""

from __future__ import annotations

from dataclasses import dataclass

from backplane.security.principal import Principal
from command_api.admission import PersonaNotAllowed, Refused
from command_api.conversations import NoSuch, Place
from command_api.known_personas import Known, KnownPersonas, NoSuchPersona
from command_api.prompt import PromptBody
from event_schemas.payload import PersonaRef


@dataclass(frozen=True, slots=True)
class AskedAs:
    body: PromptBody
    persona: PersonaRef | None = None
    fallbacks: tuple[str, ...] = ()
    """Models in place of those that the pool falls back to."""


async def asked_as(personas: KnownPersonas, principal: Principal, body: PromptBody, place: Place) -> AskedAs:
    """``body`` at its place in a conversation, which stays with the persona that it has until a prompt names another.

    Raises Refused, NoSuch, and what ``personas`` raise.
    """
    known = await _known(personas, principal, body, place)
    if known is None:
        if body.variables:
            raise Refused(
                "unknown-variable", "body.variables", "Only a prompt that is asked as a persona has variables."
            )
        if place.persona is not None and body.system is None:
            # What the persona said of itself holds no more.
            body = body.model_copy(update={"system": ""})
        return AskedAs(body)
    ref, content = known.ref, known.persona.content
    if content.users is not None and principal.user_id not in content.users:
        raise PersonaNotAllowed("persona-not-allowed", "body.persona", f"{ref.name} is for certain users only.")
    begins = place.parent_message_id is None
    # Where nothing that was said before can be read, the persona's own words are gone, too.
    anew = begins or place.persona != ref or place.data_key is None or place.origin_erased
    asked = known.persona.prompt(ref, body, begins=begins, anew=anew)
    return AskedAs(asked, ref, content.fallbacks if body.model is None else ())


async def _known(personas: KnownPersonas, principal: Principal, body: PromptBody, place: Place) -> Known | None:
    is_named = "persona" in body.model_fields_set
    name, _, version = (body.persona or "").partition("@")
    if not is_named and place.persona is not None:
        name = place.persona.name
    if principal.personas is not None and name not in principal.personas:
        allowed = ", ".join(sorted(principal.personas)) or "none"
        what = f"may not ask as {name!r}" if name else "asks as a persona only"
        raise PersonaNotAllowed("persona-not-allowed", "body.persona", f"This key {what}. It may ask as: {allowed}.")
    try:
        if is_named and body.persona is not None:
            return await personas.named(principal.tenant_id, name, int(version) if version else None)
        if not is_named and place.persona is not None:
            return await personas.again(principal.tenant_id, place.persona)
    except NoSuchPersona:
        if is_named:
            raise NoSuch("persona") from None
        raise Refused(
            "persona-removed",
            "body.persona",
            f"The persona of this conversation, {name}, was removed. Name another, or null to go on without.",
        ) from None
    return None
