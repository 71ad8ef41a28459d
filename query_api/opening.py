"""What was written, opened for who may read it. Its wrapped data key comes with the rows that hold it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from backplane.ports.database import Row
from backplane.ports.key_wrapping import CannotUnwrap
from backplane.security.content import CannotRead, ContentErased, DataKey, DataKeys, opened_row

logger = logging.getLogger(__name__)

_ENDED = frozenset(("completed", "failed", "cancelled"))

_BREAKS = str.maketrans("\n\r", "  ")
"""JSON has line breaks between its tokens alone, and an event of a stream has none."""


class Opener:
    """Opens what was written in one conversation by one data key."""

    def __init__(self, key: DataKey | None, fault: str | None = None) -> None:
        """``key`` is None where it is gone, and where ``fault`` says why it cannot be had."""
        self._key = key
        self._fault = fault

    @classmethod
    async def of(cls, keys: DataKeys, tenant_id: UUID, conversation_id: UUID, wrapped: bytes | None) -> Opener:
        """``wrapped`` is the data key as it is stored; None where it is gone. Raises WrappingUnavailable."""
        if wrapped is None:
            return cls(None)
        try:
            return cls(await keys.unwrap(wrapped, tenant_id, conversation_id))
        except CannotUnwrap as error:
            return cls(None, str(error))

    def open(self, written: Row) -> Row:
        """The content's JSON. Raises ContentErased, CannotRead."""
        if self._fault is not None and "plain" not in written:
            raise CannotRead(self._fault)
        return opened_row(written, self._key)

    def show(self, written: Row | None, subject: str) -> tuple[Row | None, bool]:
        """The content's JSON, and whether it was erased. What cannot be read is logged and not shown, so that it hides
        nothing else."""
        try:
            return (None if written is None else self.open(written)), False
        except ContentErased:
            return None, True
        except CannotRead as error:
            unreadable(subject, error)
            return None, False


def cut(text: str, span: Sequence[int]) -> str:
    """The JSON that stands in ``text`` from and to, in one line."""
    begin, end = span
    return text[begin:end].translate(_BREAKS)


def unreadable(subject: str, error: CannotRead) -> None:
    logger.error("unreadable", extra={"action": "content_unreadable", "subject": subject, "cause": str(error)})


def generation(row: Row, opener: Opener) -> Row:
    """The row of a generation with what was written; ``asked`` is its prompt's content."""
    subject = f"message:{row['id']}"
    prompt, prompt_erased = opener.show(row["prompt"], subject)
    answer, answer_erased = opener.show(row["answer"], subject)
    erased = row["erased"] or prompt_erased or answer_erased
    parameters = row["parameters"]
    if prompt is not None and parameters is not None:
        parameters = {**parameters, "stop": prompt.get("stop", [])}
    return {
        **row,
        **_answer(row, answer, erased),
        "parameters": parameters,
        "asked": prompt,
        "metadata": prompt and prompt.get("metadata"),
        "custom_id": prompt and prompt.get("custom_id"),
        "logprobs": (answer and answer.get("logprobs")) or None,
        "erased": erased,
    }


def messages(rows: Sequence[Row], openers: Mapping[UUID, Opener]) -> list[Row]:
    """The rows of a conversation's messages with what was written. ``openers`` are those of the conversations that they
    stand in: a fork's begin in another one."""
    prompts: dict[UUID, tuple[Row | None, bool]] = {}
    for row in rows:
        if row["id"] == row["generation_id"] or (row["prompt"] is not None and row["generation_id"] not in prompts):
            prompt, erased = openers[row["conversation_id"]].show(row["prompt"], f"message:{row['id']}")
            prompts[row["generation_id"]] = prompt, erased or row["erased"]
    none = None, False
    return [_message(row, prompts.get(row["generation_id"], none), openers[row["conversation_id"]]) for row in rows]


def summary(row: Row, opener: Opener) -> str | None:
    """The newest summary in a conversation's row."""
    content, _ = opener.show(row["summary"], f"conversation:{row['id']}")
    return None if content is None else str(content["summary"])


def title(row: Row, opener: Opener) -> Row:
    """The row of a conversation with its title."""
    content, erased = opener.show(row["title"], f"conversation:{row['id']}")
    return {**row, "title": content and content["title"], "erased": row["erased"] or erased}


def _message(row: Row, prompt: tuple[Row | None, bool], opener: Opener) -> Row:
    if row["id"] == row["generation_id"]:
        answer, erased = opener.show(row["answer"], f"message:{row['id']}")
        erased = erased or row["erased"]
        return {**row, **_answer(row, answer, erased), "tool_call_id": None, "erased": erased}
    content, erased = prompt
    said: Row = {} if content is None else content["messages"][row["ordinal"]]
    return {
        **row,
        "content": said.get("content"),
        "tool_calls": said.get("tool_calls") or None,
        "tool_call_id": said.get("tool_call_id"),
        "reasoning": None,
        "sources": None,
        "source_notes": None,
        "parsed": None,
        "erased": erased or row["erased"],
    }


def _answer(row: Row, answer: Row | None, erased: bool) -> dict[str, Any]:
    if answer is None:
        said_nothing = row["answer"] is None and row["status"] in _ENDED and not erased
        nothing = dict.fromkeys(("tool_calls", "reasoning", "sources", "source_notes", "parsed", "misfit"))
        nothing["delta_lengths"] = None
        return {"content": "" if said_nothing else None, **nothing}
    span = answer.get("json_span")
    return {
        "delta_lengths": answer["delta_lengths"],
        "parsed": None if span is None else cut(answer["text"], span),
        "misfit": answer.get("misfit"),
        "content": answer["text"],
        "tool_calls": answer.get("tool_calls") or None,
        "reasoning": answer.get("reasoning") or None,
        "sources": answer.get("sources") or None,
        "source_notes": answer.get("source_notes") or None,
    }
