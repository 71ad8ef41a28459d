"""The older completions, each prompt asked as a user's message: https://platform.openai.com/docs/api-reference/completions"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backplane.security.principal import Principal
from backplane.web.event_stream import EventStream
from command_api.chat_request import MOST_CHOICES, ChatStreamOptions
from command_api.prompt import PromptBody
from command_api.submitting import RecordsRefusals
from event_schemas.chat import logprobs_of, text_of
from gateway import asking, choices
from gateway.asking import Asked, BegunAgain, Whole
from gateway.callers import Caller
from gateway.headers import IdempotencyKey
from gateway.merging import merged
from gateway.openai import errors
from gateway.openai.answer import Completion
from gateway.openai.chat import ANSWER_HEADERS
from gateway.openai.chunks import DONE, event
from gateway.ports import ports_of
from gateway.problems import BEGUN_AGAIN, failed, invalid
from query_api.assembly import TOKEN, Step
from query_api.chat_completion import usage

router = APIRouter(prefix="/v1", tags=["openai"], route_class=RecordsRefusals)

_MAX_TOKENS = 16
"""Where a request says nothing, as OpenAI has it."""

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")

_STREAM_EXAMPLE = """\
data: {"id":"cmpl-01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11","object":"text_completion","created":1767225600,\
"model":"gemma-3-270m","choices":[{"index":0,"text":"Hello","logprobs":null,"finish_reason":null}]}

data: [DONE]

"""


class CompletionRequest(BaseModel):
    """The prompts are asked as a user's messages; `suffix`, token ids, and `best_of` beyond `n` are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"model": "gpt-3.5-turbo", "prompt": "Why is the sky blue?"}]},
    )

    model: str | None = Field(None, description="which model; none: the default", examples=["gpt-3.5-turbo"])
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MOST_CHOICES)] = Field(
        description="a prompt, or several, which are answered one by one", examples=["Why is the sky blue?"]
    )
    max_tokens: int | None = Field(None, description=f"most tokens of each answer; none: {_MAX_TOKENS}")
    temperature: float | None = Field(None, description="0 to 2; 0 is the likeliest token always")
    top_p: float | None = Field(None, description="nucleus sampling: the share of likelihood kept")
    presence_penalty: float | None = Field(None, description="-2 to 2: against what was said at all")
    frequency_penalty: float | None = Field(None, description="-2 to 2: against what was said often")
    stop: str | list[str] | None = Field(None, description="the answer ends before any of these")
    seed: int | None = Field(None, description="the same seed samples the same way")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="how many answers to each prompt")
    best_of: int | None = Field(None, description="only what `n` is")
    echo: bool | None = Field(None, description="each answer begins with its prompt")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="say of each token, and of so many others in its place, how likely the model held it",
    )
    logit_bias: dict[str, float] | None = Field(None, max_length=0, description="only none is taken", examples=[{}])
    suffix: None = Field(None, description="only null is taken")
    stream: bool | None = Field(None, description="the answer comes as it is made, as Server-Sent Events")
    stream_options: ChatStreamOptions | None = Field(None, description="of the stream")
    user: str | None = Field(None, max_length=512, description="who asks, at yours; kept in the metadata")

    @property
    def asked(self) -> list[str]:
        """One for each answer, in order."""
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [one for one in given for _ in range(self.n or 1)]


@router.post(
    "/completions",
    response_model=Completion,
    summary="OpenAI: a completion",
    responses={
        200: {
            "headers": ANSWER_HEADERS,
            "content": {"text/event-stream": {"example": _STREAM_EXAMPLE}},
        },
        **errors.responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503),
    },
)
async def create_completion(
    request: Request, principal: Caller, body: CompletionRequest, idempotency_key: IdempotencyKey = None
) -> Response:
    """For older clients; newer ones use chat completions. A client that goes away stops what it asked for."""
    if len(body.asked) > MOST_CHOICES:
        raise invalid("prompt", f"at most {MOST_CHOICES} answers at a time")
    if body.best_of not in (None, 1, body.n):
        raise invalid("best_of", "only what `n` is")
    asked = await choices.ask_all(
        request, principal, [_prompt(request, body, one) for one in body.asked], idempotency_key
    )
    head = {
        "id": f"cmpl-{asked[0].generation_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": asked[0].model,
    }
    if body.stream:
        streams = await choices.follow_all(request, principal, asked)
        events = _stream(request, principal, body, asked, streams, head)
        return EventStream(events, request.app.state.query.ping_s, asked[0].headers)
    answers = await choices.all_whole(request, principal, asked, keeps_on=False)
    return errors.json_response(
        {
            **head,
            "model": answers[0].served_model or asked[0].model,
            "choices": [_whole(body, index, one) for index, one in enumerate(answers)],
            "usage": usage([one.detail["usage"] for one in answers]),
        },
        asked[0].headers,
    )


def _prompt(request: Request, body: CompletionRequest, text: str) -> PromptBody:
    """Raises Problem."""
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    parameters = {
        **{
            name: getattr(body, name)
            for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
        },
        "max_tokens": _MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        "stop": stop,
        "logprobs": body.logprobs is not None,
        "top_logprobs": body.logprobs,
    }
    metadata = {} if body.user is None else {"user": body.user}
    given = {
        "model": ports_of(request).model(body.model),
        "input": text,
        "parameters": parameters,
        "metadata": metadata,
    }
    try:
        return PromptBody.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])).removeprefix("parameters.")
        raise invalid("prompt" if where in ("input", "") else where, first["msg"]) from None


def _whole(body: CompletionRequest, index: int, whole: Whole) -> dict[str, Any]:
    begin = body.asked[index] if body.echo else ""
    tokens = [one for delta in logprobs_of(whole.pieces) for one in delta]
    reason = whole.detail["finish_reason"]
    return _choice(index, begin + text_of(whole.pieces), tokens, len(begin), reason)


def _choice(
    index: int, text: str, tokens: Sequence[Mapping[str, Any]], offset: int, finish_reason: str | None
) -> dict[str, Any]:
    """``offset`` of the first token, in what the client has of the answer's text."""
    logprobs = None
    if tokens:
        offsets = []
        for one in tokens:
            offsets.append(offset)
            offset += len(one["token"])
        logprobs = {
            "tokens": [one["token"] for one in tokens],
            "token_logprobs": [one["logprob"] for one in tokens],
            "top_logprobs": [{other["token"]: other["logprob"] for other in one["top_logprobs"]} for one in tokens],
            "text_offset": offsets,
        }
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


async def _stream(
    request: Request,
    principal: Principal,
    body: CompletionRequest,
    asked: Sequence[Asked],
    streams: Sequence[AsyncGenerator[Step, None]],
    head: dict[str, Any],
) -> AsyncGenerator[bytes, None]:
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    null_usage: dict[str, Any] = {"usage": None} if with_usage else {}
    used: list[Mapping[str, Any]] = []
    said = [0] * len(asked)

    def chunk(index: int, text: str, tokens: Sequence[Mapping[str, Any]] = (), reason: str | None = None) -> bytes:
        found = _choice(index, text, tokens, said[index], reason)
        said[index] += len(text)
        return event({**head, "choices": [found], **null_usage})

    async with asking.stopped_without_reader(request, principal, asked):
        try:
            if body.echo:
                for index, text in enumerate(body.asked):
                    yield chunk(index, text)
            async for index, step in merged([asking.told(one) for one in streams]):
                if step.event == TOKEN:
                    tokens = [one for delta in logprobs_of(step.deltas) for one in delta]
                    yield chunk(index, text_of(step.deltas), tokens)
                elif step.event == "completed":
                    used.append(step.detail["usage"])
                    yield chunk(index, "", reason=step.detail["finish_reason"])
                elif step.event in ("failed", "cancelled"):
                    yield event(errors.document(failed(step.detail)))
                    return
        except BegunAgain:
            yield event(errors.document(BEGUN_AGAIN))
            return
        if with_usage:
            yield event({**head, "choices": [], "usage": usage(used)})
        yield DONE
