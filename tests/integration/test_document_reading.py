"""The process that reads strangers' documents."""

from __future__ import annotations

import pytest

from tests import documents
from workers.knowledge.documents import UnreadableDocument
from workers.knowledge.reading import read_document


async def test_a_document_is_read_elsewhere() -> None:
    read = await read_document(documents.word("Ships stay in port."), within_s=60)
    assert (read.kind, read.text) == ("docx", "Ships stay in port.")


async def test_why_it_cannot_be_read_comes_back() -> None:
    with pytest.raises(UnreadableDocument, match="neither PDF nor DOCX") as raised:
        await read_document(b"\xff\xd8\xff\xe0 a picture", within_s=60)
    assert raised.value.reason == "unknown_kind"


async def test_one_that_takes_too_long_is_ended() -> None:
    with pytest.raises(UnreadableDocument) as raised:
        await read_document(documents.pdf("words"), within_s=0.001)
    assert raised.value.reason == "took_too_long"
