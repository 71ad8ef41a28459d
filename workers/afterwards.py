"""What the end of a generation leads to: prompts of Parley's own for a title or a summary, and what these have made.

Decides; does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from backplane.ports import token_estimate
from backplane.security.content import DataKey
from event_schemas.background import TITLE_TOKENS, summary_prompt, summary_tokens, title_prompt
from event_schemas.codec import AnyEnvelope
from event_schemas.control_plane import TitleContent
from event_schemas.conversations import ConversationSummarised, ConversationTitled, SummaryContent
from event_schemas.generation import PromptContent, SubmitPrompt
from event_schemas.payload import Usage
from workers.facts import Facts

TITLE_CHARACTERS = 60
_QUOTES = "\"'`*#“”„«»‘’"


@dataclass(frozen=True, slots=True)
class Completed:
    """A generation that came to its end. ``window`` is its model's, None where that is not known."""

    prompt: SubmitPrompt
    content: PromptContent
    answer: str
    usage: Usage
    window: int | None
    slid: bool = False
    """There was no room for some of what was said before, and no summary stood for it."""
    forked: bool = False
    """Some of it was said in another conversation, so that no summary of it may be kept under this one's key."""


def afterwards(facts: Facts, ended: Completed, key: DataKey, *, titles: bool) -> tuple[AnyEnvelope, ...]:
    """Commands and events that are to be published with its end. ``titles``: its pool makes them."""
    prompt = ended.prompt
    if not prompt.keeps_content:
        return ()
    match prompt.purpose:
        case "title":
            title = title_of(ended.answer)
            made = title and ConversationTitled(
                conversation_id=prompt.conversation_id,
                generation_id=prompt.generation_id,
                content=key.seal(TitleContent(title=title)),
            )
            return (facts.say(made),) if made else ()
        case "summary":
            summary, up_to = ended.answer.strip(), prompt.parent_message_id
            if not summary or up_to is None:
                return ()
            content = key.seal(SummaryContent(summary=summary))
            return (
                facts.say(
                    ConversationSummarised(
                        conversation_id=prompt.conversation_id,
                        generation_id=prompt.generation_id,
                        up_to_message_id=up_to,
                        content=content,
                    )
                ),
            )
        case "answer":
            return tuple(map(facts.say, _wanted(facts, ended, key, titles=titles)))


def _wanted(facts: Facts, ended: Completed, key: DataKey, *, titles: bool) -> list[SubmitPrompt]:
    prompt, wanted = ended.prompt, []
    if titles and prompt.title is not None and ended.answer.strip():
        question = next((one.text for one in ended.content.messages if one.role == "user"), "")
        read = token_estimate.text_tokens(question) + token_estimate.text_tokens(ended.answer)
        wanted.append(title_prompt(prompt, question, ended.answer, facts.reserved(read, TITLE_TOKENS), key.seal))
    if prompt.window == "summarise" and prompt.parent_message_id is not None and is_nearly_full(ended):
        tokens = summary_tokens(ended.window)
        reserved = facts.reserved(ended.usage.input_tokens, tokens)
        wanted.append(summary_prompt(prompt, prompt.parent_message_id, tokens, reserved, key.seal))
    return wanted


def is_nearly_full(ended: Completed) -> bool:
    """Whether a summary is wanted, or will be: then it is there before it is needed."""
    used = ended.usage.input_tokens + ended.usage.output_tokens
    if ended.forked:
        return False
    return ended.slid or (ended.window is not None and used * 4 >= ended.window * 3)


def title_of(said: str) -> str:
    """The title in what a model said: its first line, without quotes and marks around it; empty where there is none."""
    line = next((stripped for line in said.splitlines() if (stripped := line.strip(f" \t{_QUOTES}"))), "")
    title = line.removeprefix("Title:").strip(f" \t{_QUOTES}").removesuffix(".")
    return " ".join(title.split())[:TITLE_CHARACTERS].rstrip()
