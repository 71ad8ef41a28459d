"""The doors for clients of other protocols."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class DoorSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    openai: bool = Field(
        default=True, description="OpenAI's API is there: chat completions, completions, responses, embeddings, models"
    )
    anthropic: bool = Field(default=True, description="Anthropic's API is there: messages, counting tokens, models")
    chat_tools: bool = Field(default=True, description="people may ask in Slack, Discord and Microsoft Teams")
    slack_url: str = Field(default="https://slack.com/api", description="where Slack's API is")
    discord_url: str = Field(default="https://discord.com/api/v10", description="where Discord's API is")
    personas: bool = Field(
        default=True,
        description="an earlier system's is there: `/gpt-socket`, `/gpt`, `/toil`, `/describe`, `/embedding`,"
        " `/platform`",
    )
    bare_end: bool = Field(
        default=False, description="an answer on `/gpt-socket` ends with `<END>`, without the session to go on with"
    )
    prompt: bool = Field(default=True, description="an earlier system's `POST /prompt` is there")
    characters: bool = Field(
        default=True,
        description="an earlier system's is there: `/signup/`, `/chat/`, `/create_npc/`, `/chat_npc/`, `/rag/`",
    )
    sessions: bool = Field(default=True, description="an earlier system's is there: `/v1/auth`, `/v1/gpt/sessions`")
    admin_key: SecretStr | None = Field(
        default=None,
        description="API key of an admin, whose tenant everybody may join who comes to `/signup/` or `/v1/auth/signup`"
        " without a key; none: nobody may",
    )
    rate_limit: int | None = Field(
        default=None, ge=0, description="requests a minute of each user that signs up at these; none: no limit"
    )
    cancel_on_disconnect: bool = Field(
        default=True, description="a client of another protocol that goes away cancels what it asked for"
    )
    aliases: dict[str, str] = Field(
        default={"gpt-3.5-turbo": "", "gpt-4": ""},
        description="names of models that clients may know, and the model that each one is where no pool serves it by"
        " that name; empty: the default model",
    )
    embedding_aliases: dict[str, str] = Field(
        default={"text-embedding-3-small": "", "text-embedding-ada-002": ""},
        description="the same of embedders: no embedder is, or runs, a model of that name; empty: the first embedder",
    )
    local_key: SecretStr | None = Field(
        default=None,
        description="the API key that a client on this machine has whose own is none of Parley's; needs `host` to be a"
        " loopback address",
    )
