"""What an answer is to stand on: what a prompt wishes for, and what was used of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SourceKind = Literal["url", "text", "site", "collection"]


class _Wish(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    optional: bool = Field(default=False, description="the prompt is answered without it where it cannot be had")


class UrlWish(_Wish):
    """A page or a feed of the web."""

    kind: Literal["url"] = "url"
    url: str


class TextWish(_Wish):
    """What was given by hand."""

    kind: Literal["text"] = "text"
    text: str


class SiteWish(_Wish):
    """All URLs of one of the tenant's sites."""

    kind: Literal["site"] = "site"
    site: str = Field(description="its name or its domain")


class CollectionWish(_Wish):
    """What of a collection has to do with the question."""

    kind: Literal["collection"] = "collection"
    collection_id: UUID
    name: str
    most: int = Field(default=6, description="chunks")


class ChoiceWish(_Wish):
    """Those that the model picks for the question."""

    kind: Literal["choice"] = "choice"
    among: tuple[Annotated[SiteWish | CollectionWish, Field(discriminator="kind")], ...]
    most: int = 3


SourceWish: TypeAlias = Annotated[
    UrlWish | TextWish | SiteWish | CollectionWish | ChoiceWish, Field(discriminator="kind")
]


class Source(BaseModel):
    """What was put before a question."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int = Field(ge=1, description="as the prompt cites it: `[1]`", examples=[1])
    kind: SourceKind = Field(description="what it is", examples=["url"])
    title: str | None = Field(
        default=None, description="as the page, the feed or the document has it", examples=["Tea"]
    )
    url: str | None = Field(
        default=None,
        description="where it was found, after redirects",
        examples=["https://example.com/tea"],
    )
    site: str | None = Field(default=None, description="the name of the tenant's site that it is of", examples=[None])
    collection_id: UUID | None = Field(default=None, description="the collection that it is of", examples=[None])
    document_id: UUID | None = Field(default=None, description="the document that it is of", examples=[None])
    chunk_id: UUID | None = Field(default=None, description="the part of the document that it is", examples=[None])
    fetched_at: AwareDatetime | None = Field(
        default=None, description="when it was fetched", examples=["2026-03-01T12:00:00.123456Z"]
    )
    characters: int = Field(ge=0, description="how much of its text was put before the question", examples=[4096])
    chosen: bool = Field(default=False, description="the model picked it", examples=[False])


def as_given(wish: SourceWish) -> dict[str, Any]:
    """``wish`` as clients write it: collections by their ids alone."""
    given = wish.model_dump(mode="json", exclude={"name"} if wish.optional else {"name", "optional"})
    if isinstance(wish, ChoiceWish):
        given["among"] = [as_given(one) for one in wish.among]
    return given
