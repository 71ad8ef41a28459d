"""The sources of a prompt, as clients write them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from pydantic import Field, TypeAdapter

from backplane.security.fetch_rules import MOST_CHARACTERS
from command_api.message_body import Body, Text
from event_schemas.sources import ChoiceWish, CollectionWish, SiteWish, SourceWish, TextWish, UrlWish, as_given

MOST = 8
"""Sources of one prompt, those that stand in its text too."""

_OPTIONAL: Any = Field(False, description="answer without it where it cannot be had; else the generation fails")


class UrlBody(Body):
    """A page or a feed, where the tenant lets its prompts name URLs."""

    kind: Literal["url"] = Field(description="always `url`")
    url: Text = Field(
        min_length=1, max_length=MOST_CHARACTERS, description="where it is", examples=["https://example.com/tea"]
    )
    optional: bool = _OPTIONAL

    def wish(self) -> UrlWish:
        return UrlWish(url=self.url, optional=self.optional)


class TextBody(Body):
    """Material that is given by hand."""

    kind: Literal["text"] = Field(description="always `text`")
    text: Text = Field(min_length=1, description="the material", examples=["The kettle is red."])

    def wish(self) -> TextWish:
        return TextWish(text=self.text)


class SiteSourceBody(Body):
    """All URLs of one of the tenant's sites."""

    kind: Literal["site"] = Field(description="always `site`")
    site: Text = Field(min_length=1, max_length=253, description="its name or its domain", examples=["news"])
    optional: bool = _OPTIONAL

    def wish(self) -> SiteWish:
        return SiteWish(site=self.site, optional=self.optional)


class CollectionSourceBody(Body):
    """What of one of the tenant's collections has to do with the question."""

    kind: Literal["collection"] = Field(description="always `collection`")
    collection_id: UUID = Field(
        description="the collection, as its 201 named it", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d20"]
    )
    most: int = Field(6, ge=1, le=20, description="chunks at most")
    optional: bool = _OPTIONAL

    def wish(self) -> CollectionWish:
        """Its name is looked up when it is held against what there is."""
        return CollectionWish(
            collection_id=self.collection_id, name=str(self.collection_id), most=self.most, optional=self.optional
        )


class ChoiceBody(Body):
    """The model picks the sites and collections that help with the question; which, is in the answer's `sources`."""

    kind: Literal["choice"] = Field(description="always `choice`")
    among: tuple[Annotated[SiteSourceBody | CollectionSourceBody, Field(discriminator="kind")], ...] = Field(
        min_length=1,
        max_length=50,
        description="what there is",
        examples=[[{"kind": "site", "site": "news"}, {"kind": "site", "site": "weather"}]],
    )
    most: int = Field(3, ge=1, le=10, description="most that it picks")
    optional: bool = Field(False, description="go on without what of `among` is not there any more")

    def wish(self) -> ChoiceWish:
        return ChoiceWish(among=tuple(one.wish() for one in self.among), most=self.most, optional=self.optional)


SourceBody: TypeAlias = Annotated[
    UrlBody | TextBody | SiteSourceBody | CollectionSourceBody | ChoiceBody, Field(discriminator="kind")
]


_BODIES: TypeAdapter[tuple[SourceBody, ...]] = TypeAdapter(tuple[SourceBody, ...])


def bodies_of(wishes: tuple[SourceWish, ...]) -> tuple[SourceBody, ...]:
    """As a client would write them."""
    return _BODIES.validate_python([as_given(wish) for wish in wishes])


def wishes_of(bodies: tuple[SourceBody, ...]) -> tuple[SourceWish, ...]:
    return tuple(one.wish() for one in bodies)
