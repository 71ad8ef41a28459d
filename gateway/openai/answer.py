"""The shapes of OpenAI's answers, for the API pages. Nothing is validated by them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

_ID = "chatcmpl-01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"


class CalledFunction(BaseModel):
    name: str = Field(description="the tool", examples=["get_weather"])
    arguments: str = Field(description="JSON as the model wrote it", examples=['{"city": "Bonn"}'])


class AskedTool(BaseModel):
    id: str = Field(description="what the tool's message names", examples=["call_abc123"])
    type: Literal["function"] = Field(description="always `function`", examples=["function"])
    function: CalledFunction = Field(description="what it asks for")


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = Field(description="always `assistant`", examples=["assistant"])
    content: str | None = Field(description="what the model said; null where it only asked for tools", examples=["Hi."])
    refusal: str | None = Field(description="always null", examples=[None])
    tool_calls: list[AskedTool] | None = Field(None, description="not there where it asked for none")
    reasoning_content: str | None = Field(
        None, description="what it thought; not there where it did not", examples=["It is short."]
    )


class ChatChoice(BaseModel):
    index: int = Field(description="of `n`, from 0", examples=[0])
    message: AnswerMessage = Field(description="the answer")
    logprobs: dict[str, Any] | None = Field(description="where they were asked for", examples=[None])
    finish_reason: str = Field(description="`stop`, `length`, `tool_calls` or `content_filter`", examples=["stop"])


class Usage(BaseModel):
    prompt_tokens: int = Field(description="tokens of the prompt", examples=[5])
    completion_tokens: int = Field(description="tokens of the answers", examples=[2])
    total_tokens: int = Field(description="both", examples=[7])
    prompt_tokens_details: dict[str, int] | None = Field(
        None, description="how many of them were read before", examples=[{"cached_tokens": 0}]
    )
    completion_tokens_details: dict[str, int] | None = Field(
        None, description="how many of them were thought", examples=[{"reasoning_tokens": 0}]
    )


class ChatCompletion(BaseModel):
    id: str = Field(description="of the first generation", examples=[_ID])
    object: Literal["chat.completion"] = Field(description="always `chat.completion`", examples=["chat.completion"])
    created: int = Field(description="Unix time", examples=[1767225600])
    model: str = Field(description="the model that answered", examples=["gemma-3-270m"])
    choices: list[ChatChoice] = Field(description="the answers")
    usage: Usage = Field(description="what all of them used")


class TextChoice(BaseModel):
    index: int = Field(description="from 0", examples=[0])
    text: str = Field(description="the answer", examples=["Hi."])
    logprobs: dict[str, Any] | None = Field(description="where they were asked for", examples=[None])
    finish_reason: str | None = Field(description="`stop` or `length`", examples=["stop"])


class Completion(BaseModel):
    id: str = Field(description="of the first generation", examples=["cmpl-01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"])
    object: Literal["text_completion"] = Field(description="always `text_completion`", examples=["text_completion"])
    created: int = Field(description="Unix time", examples=[1767225600])
    model: str = Field(description="the model that answered", examples=["gemma-3-270m"])
    choices: list[TextChoice] = Field(description="the answers")
    usage: Usage = Field(description="what all of them used")


class MadeEmbedding(BaseModel):
    object: Literal["embedding"] = Field("embedding", description="always `embedding`", examples=["embedding"])
    index: int = Field(description="of its text, from 0", examples=[0])
    embedding: list[float] | str = Field(
        description="the vector, of length one; as text, it is base64 of little-endian floats of four bytes",
        examples=[[0.6, 0.8]],
    )


class EmbeddingsUsage(BaseModel):
    prompt_tokens: int = Field(description="tokens of the texts", examples=[5])
    total_tokens: int = Field(description="the same", examples=[5])


class EmbeddingList(BaseModel):
    object: Literal["list"] = Field("list", description="always `list`", examples=["list"])
    data: list[MadeEmbedding] = Field(description="one for each text, in order")
    model: str = Field(description="whose vectors they are: only those of one can be compared", examples=["minilm"])
    usage: EmbeddingsUsage = Field(description="what was used")


class Model(BaseModel):
    id: str = Field(description="what requests call it", examples=["gemma-3-270m"])
    object: Literal["model"] = Field("model", description="always `model`", examples=["model"])
    created: int = Field(0, description="always 0: nobody says when it was made", examples=[0])
    owned_by: str = Field(description="the pool that serves it, or the embedder", examples=["local"])


class ModelList(BaseModel):
    object: Literal["list"] = Field("list", description="always `list`", examples=["list"])
    data: list[Model] = Field(description="those that the caller may ask, and other names for them")
