"""Personas at the command line, through the command API's own handlers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from backplane.settings import Settings
from backplane.wiring.embedded import completed
from backplane.wiring.services import command_side
from cli import local_models, tenancy
from cli.configuration import load_llm
from cli.failures import CommandError
from command_api import persona_file, variables
from command_api.admission import Refused
from command_api.content_keys import ContentKeys
from command_api.known_personas import NoSuchPersona
from command_api.persona import InvalidPersona, Persona
from command_api.persona_file import PersonaFile, UnusableFile
from command_api.persona_preview import Preview, preview
from command_api.personas import NoSuchUser, Personas, Saved
from command_api.tenancy import OPERATOR
from event_schemas.payload import PersonaRef
from event_schemas.personas import PersonaContent, Value

SUFFIXES = (".json", ".yaml", ".yml")
"""Of files that hold a persona."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of one file. ``saved`` is None where ``problem`` says why, or where nothing changed."""

    file: Path
    saved: Saved | None = None
    problem: str | None = None
    notices: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """What there is to tell of it."""
        if self.problem is not None:
            yield f"{self.file} is not saved: {self.problem}"
        for notice in self.notices:
            yield f"{self.file}: {notice}"
        if self.saved is not None:
            for name in self.saved.unused:
                yield f"{self.file}: no template names the variable `{name}`"
            yield f"saved the persona {self.saved.ref.name}@{self.saved.ref.version}"


async def found(settings: Settings, tenant: str) -> list[PersonaRef]:
    """The newest version of each. Raises CommandError where the tenant is not there."""
    async with _personas(settings, tenant) as (personas, tenant_id):
        return await personas.all(tenant_id)


async def definition(settings: Settings, tenant: str, name: str, version: int | None) -> PersonaContent:
    """Raises CommandError."""
    async with _personas(settings, tenant) as (personas, tenant_id):
        try:
            return await personas.definition(tenant_id, name, version)
        except NoSuchPersona:
            which = name if version is None else f"{name}@{version}"
            raise CommandError(f"the tenant {tenant!r} has no persona {which}; see `parley persona list`") from None


async def save(settings: Settings, tenant: str, file: Path, name: str | None) -> Loaded:
    """Raises CommandError."""
    parsed = of_file(file)
    async with _personas(settings, tenant) as (personas, tenant_id):
        try:
            chosen = persona_file.slug(name or parsed.name)
            saved = await personas.save(tenant_id, chosen, parsed.definition.content(), actor=OPERATOR)
        except (UnusableFile, InvalidPersona, Refused, NoSuchUser) as error:
            raise CommandError(f"{file}: {_said(error)}") from None
    return Loaded(file, saved, notices=parsed.notices)


async def load(settings: Settings, tenant: str, folder: Path) -> list[Loaded]:
    """Save each file of ``folder`` that says something else than when it was last saved from a file.

    So a start makes no versions, and does not undo what was changed over the API since. Raises CommandError where the
    folder or the tenant is not there; what is wrong with a file is in its ``problem``.
    """
    files = _files(folder)
    async with _personas(settings, tenant) as (personas, tenant_id):
        return [await _loaded(personas, tenant_id, file) for file in files]


async def remove(settings: Settings, tenant: str, name: str) -> None:
    """Raises CommandError."""
    async with _personas(settings, tenant) as (personas, tenant_id):
        try:
            await personas.remove(tenant_id, name, actor=OPERATOR)
        except NoSuchPersona:
            raise CommandError(f"the tenant {tenant!r} has no persona {name}") from None


async def previewed(settings: Settings, content: PersonaContent, given: list[str], said: str | None) -> Preview:
    """``given`` are `name=value`. Raises CommandError."""
    settings = await _with_models(settings)
    try:
        persona = Persona(content)
        persona.check()
        return preview(persona, settings, dict(_values(content, given)), said)
    except (InvalidPersona, Refused, variables.VariableError) as error:
        raise CommandError(_said(error)) from None


def of_file(file: Path) -> PersonaFile:
    """Raises CommandError."""
    try:
        return _read(file)
    except UnusableFile as error:
        raise CommandError(f"{file}: {error}") from None


def _read(file: Path) -> PersonaFile:
    try:
        return persona_file.parse(file.read_text(), file.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"it cannot be read: {error}") from None


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise CommandError(f"there is no folder {folder}")
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())


async def _loaded(personas: Personas, tenant_id: UUID, file: Path) -> Loaded:
    try:
        parsed = _read(file)
        content = parsed.definition.content()
        if content == await personas.last_saved_by(tenant_id, parsed.name, OPERATOR):
            return Loaded(file)
        saved = await personas.save(tenant_id, parsed.name, content, actor=OPERATOR)
    except (UnusableFile, InvalidPersona, Refused, NoSuchUser) as error:
        return Loaded(file, problem=_said(error))
    return Loaded(file, saved, notices=parsed.notices)


def _values(content: PersonaContent, given: list[str]) -> Iterator[tuple[str, Value]]:
    types: Mapping[str, str] = {one.name: one.type for one in content.variables}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise CommandError(f"--variable {name}: write it as name=value")
        is_text = types.get(name) in ("string", "choice", None)
        try:
            yield name, text if is_text else json.loads(text)
        except ValueError:
            raise CommandError(f"--variable {name}: its value is no {types[name]}") from None


def _said(error: Exception) -> str:
    match error:
        case InvalidPersona():
            return f"{error.field}: {error}"
        case NoSuchUser():
            return "users: one of them is not there"
        case _:
            return str(error)


@asynccontextmanager
async def _personas(settings: Settings, tenant: str) -> AsyncIterator[tuple[Personas, UUID]]:
    tenant_id = await tenancy.find_tenant(settings, tenant)
    settings = await _with_models(settings)
    async with command_side(completed(settings)) as side:
        keys = ContentKeys(side.database, side.data_keys)
        yield Personas(side.database, side.signals, keys, settings), tenant_id


async def _with_models(settings: Settings) -> Settings:
    """With the names of local models, which personas may name, as the APIs know them."""
    return await local_models.resolved(settings, load_llm(), lambda doing, share: None)
