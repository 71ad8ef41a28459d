"""How likely a model held the tokens that it wrote, and what else it might have written. Plain JSON."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict


class TopLogprob(TypedDict):
    """A token that the model might have written."""

    token: Annotated[str, Field(description="its text", examples=["Hello"])]
    logprob: Annotated[float, Field(description="natural logarithm of its probability", examples=[-0.31725305])]
    bytes: NotRequired[
        Annotated[
            list[int],
            Field(description="where they are not its text in UTF-8: of half a character, for one", examples=[[240]]),
        ]
    ]


class TokenLogprob(TopLogprob):
    """A token that the model wrote."""

    top_logprobs: Annotated[
        list[TopLogprob],
        Field(description="the likeliest in its place, as many as were asked for, the likeliest first"),
    ]
