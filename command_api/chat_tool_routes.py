"""The endpoints of a tenant's chat tools."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AfterValidator, BaseModel, Field, SecretStr

from backplane.ports.database import Row
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api.admission import ModelNotAllowed, Refused
from command_api.chat_tools import Added, ChatToolKind, NoSuchChatTool
from command_api.message_body import Body, Text
from command_api.ports import ports_of

router = APIRouter(prefix="/v1", tags=["chat tools"])

Admin = Annotated[Principal, Depends(requires("chat_tools.manage"))]

ChatToolId = Annotated[UUID, Path(description="the chat tool, as the 201 named it")]

_ID = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d15"
_MOST = 500


def _is_base64(given: SecretStr) -> SecretStr:
    try:
        base64.b64decode(given.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    return given


SecurityToken = Annotated[SecretStr, Field(min_length=8, max_length=_MOST), AfterValidator(_is_base64)]


class SlackSecrets(Body):
    kind: Literal["slack"] = Field(description="always `slack`", examples=["slack"])
    signing_secret: SecretStr = Field(
        min_length=8,
        max_length=_MOST,
        description="the app's signing secret, which proves that a request is Slack's",
        examples=["8f742231b10e8888abcd99yyyzzz85a5"],
    )
    bot_token: SecretStr = Field(
        min_length=8, max_length=_MOST, description="the token that answers are posted with", examples=["xoxb-…"]
    )


class DiscordSecrets(Body):
    kind: Literal["discord"] = Field(description="always `discord`", examples=["discord"])
    public_key: str = Field(
        pattern="^[0-9a-fA-F]{64}$",
        description="the application's public key, which proves that a request is Discord's",
        examples=["3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"],
    )
    bot_token: SecretStr | None = Field(
        None,
        min_length=8,
        max_length=_MOST,
        description="what answers are posted with that come later than 15 minutes after the question, when Discord's"
        " own token for it has ended; none: those do not arrive",
        examples=[None],
    )


class TeamsSecrets(Body):
    kind: Literal["teams"] = Field(description="always `teams`", examples=["teams"])
    security_token: SecurityToken = Field(
        description="the security token that Teams shows once an outgoing webhook is made",
        examples=["LypLIE9uZSBkb2VzIG5vdCBrbm93LiAqLw=="],
    )


class _Described(Body):
    name: Text = Field(min_length=1, max_length=100, description="for people", examples=["Help desk"])
    persona: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}(@[1-9][0-9]{0,8})?$",
        description="what its users ask as; none: as none",
        examples=["clerk"],
    )
    model: Text | None = Field(
        None, max_length=200, description="which model they ask; none: the persona's, or the default", examples=[None]
    )


class SlackBody(_Described, SlackSecrets):
    """An app in Slack."""


class DiscordBody(_Described, DiscordSecrets):
    """An application in Discord."""


class TeamsBody(_Described):
    """An outgoing webhook of a team in Microsoft Teams, whose security token is known only once it is made."""

    kind: Literal["teams"] = Field(description="always `teams`", examples=["teams"])
    security_token: SecurityToken | None = Field(
        None,
        description="as Teams shows it; none: it is set later, and until then every request is refused",
        examples=[None],
    )


ChatToolBody = Annotated[SlackBody | DiscordBody | TeamsBody, Field(discriminator="kind")]
SecretsBody = Annotated[SlackSecrets | DiscordSecrets | TeamsSecrets, Field(discriminator="kind")]


class ChatToolCreated(BaseModel):
    id: UUID = Field(description="names it from now on", examples=[_ID])
    kind: ChatToolKind = Field(description="where it is", examples=["slack"])
    name: str = Field(description="for people", examples=["Help desk"])
    persona: str | None = Field(description="what its users ask as", examples=["clerk"])
    model: str | None = Field(description="which model they ask", examples=[None])
    path: str = Field(description="where it posts to, at this API's own address", examples=[f"/chat-tools/{_ID}/slack"])
    added_at: datetime = Field(description="when it was added", examples=["2026-03-01T12:00:00.123456Z"])

    @classmethod
    def of(cls, added: Added) -> ChatToolCreated:
        return cls(
            id=added.id,
            kind=added.kind,
            name=added.name,
            persona=added.persona,
            model=added.model,
            path=_path(added.id, added.kind),
            added_at=added.added_at,
        )


class ChatToolView(ChatToolCreated):
    last_failure: str | None = Field(
        description="why an answer could not be brought there, the last time", examples=["Slack says: not_in_channel"]
    )
    last_failed_at: datetime | None = Field(description="when that was", examples=["2026-03-02T12:00:00.123456Z"])

    @classmethod
    def of_row(cls, row: Row) -> ChatToolView:
        return cls(**row, path=_path(row["id"], row["kind"]))


class ChatToolList(BaseModel):
    chat_tools: list[ChatToolView] = Field(description="the newest first")


@router.post(
    "/chat-tools", status_code=201, summary="Add a chat tool", responses=responses(400, 401, 403, 413, 415, 422, 503)
)
async def add_chat_tool(request: Request, principal: Admin, body: ChatToolBody) -> ChatToolCreated:
    """Who asks there asks as the caller, within the caller's limits, as long as the caller may ask."""
    ports = ports_of(request)
    with _answers():
        added = await ports.chat_tools.add(
            principal, body.kind, body.name, body.persona, body.model, _secrets(body, *_Described.model_fields)
        )
    ports.relay.wake()
    return ChatToolCreated.of(added)


@router.get("/chat-tools", summary="Chat tools, and whether answers arrive", responses=responses(401, 403, 422, 503))
async def list_chat_tools(request: Request, principal: Admin) -> ChatToolList:
    rows = await ports_of(request).chat_tools.all(principal.tenant_id)
    return ChatToolList(chat_tools=[ChatToolView.of_row(row) for row in rows])


@router.put(
    "/chat-tools/{chat_tool_id}/secrets",
    status_code=204,
    summary="Set what proves that a chat tool's requests are its own",
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503),
)
async def set_chat_tool_secrets(
    request: Request, principal: Admin, chat_tool_id: ChatToolId, body: SecretsBody
) -> None:
    """The former ones hold no more."""
    ports = ports_of(request)
    with _answers():
        await ports.chat_tools.set_secrets(principal, chat_tool_id, body.kind, _secrets(body))
    ports.relay.wake()


@router.delete(
    "/chat-tools/{chat_tool_id}",
    status_code=204,
    summary="Remove a chat tool",
    responses=responses(401, 403, 404, 422, 503),
)
async def remove_chat_tool(request: Request, principal: Admin, chat_tool_id: ChatToolId) -> None:
    """Nobody asks through it any more; answers that are on their way do not arrive. Its conversations stay."""
    ports = ports_of(request)
    with _answers():
        await ports.chat_tools.remove(principal, chat_tool_id)
    ports.relay.wake()


def _secrets(body: Body, *others: str) -> dict[str, str]:
    given: dict[str, Any] = {name: getattr(body, name) for name in type(body).model_fields}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in given.items()
        if name not in ("kind", *others) and value is not None
    }


def _path(chat_tool_id: UUID, kind: str) -> str:
    return f"/chat-tools/{chat_tool_id}/{kind}"


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except NoSuchChatTool:
        raise not_found("chat tool") from None
    except ModelNotAllowed as refused:
        raise Problem(403, refused.type, "Model not allowed", str(refused)) from None
    except Refused as refused:
        errors = [{"field": refused.field, "message": str(refused)}]
        raise Problem(422, refused.type, "The chat tool is refused", str(refused), errors=errors) from None
