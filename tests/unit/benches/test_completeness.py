from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benches.answer import Answer, Broken
from benches.completeness import check, difference_of

URL = "/v1/generations/1"


def streamed(text: str = "the rain", outcome: str = "completed", url: str = URL) -> Answer:
    data = [b'{"text":"%b"}' % text[:3].encode(), b'{"text":"%b"}' % text[3:].encode()]
    return Answer(0.0, times=[1.0, 2.0], seqs=[1, 2], data=data, ended=2.0, outcome=outcome, url=url)


def stored(content: str | None = "the rain", status: str = "completed") -> dict[str, Any]:
    return {"status": status, "content": content}


class Shelf:
    """Gives what stands in it, one after another; the last for ever."""

    def __init__(self, *generations: Mapping[str, Any] | Broken | None) -> None:
        self._generations = list(generations)
        self.asked: list[str] = []

    async def stored(self, url: str) -> dict[str, Any] | None:
        self.asked.append(url)
        found = self._generations.pop(0) if len(self._generations) > 1 else self._generations[0]
        if isinstance(found, Broken):
            raise found
        return None if found is None else dict(found)


async def test_what_is_equal_is_complete() -> None:
    found = await check([streamed()], 2, [Shelf(stored())])
    assert (found.answers, found.wrong) == (1, [])
    assert found.settled_s is not None


async def test_a_read_model_that_is_behind_is_asked_again() -> None:
    shelf = Shelf(None, stored(None, "running"), stored())
    assert (await check([streamed()], 2, [shelf])).wrong == []
    assert shelf.asked == [URL, URL, URL]


@pytest.mark.parametrize(
    ("last", "said"), [(stored(None, "running"), "still says running"), (None, "the read model lags")]
)
async def test_a_read_model_that_stays_behind_is_wrong(last: dict[str, Any] | None, said: str) -> None:
    (line,) = (await check([streamed()], 2, [Shelf(last)], deadline_s=0.01)).wrong
    assert said in line


async def test_what_differs_is_named_without_its_text() -> None:
    (line,) = (await check([streamed()], 2, [Shelf(stored("the rats"))])).wrong
    assert line == f"{URL}: 8 characters streamed, 8 stored, which differ from character 6 on"


@pytest.mark.parametrize("content", ["the rain falls", "the", "", None])
def test_a_part_is_not_the_whole(content: str | None) -> None:
    assert difference_of(streamed(), stored(content)) is not None


def test_another_end_is_a_difference() -> None:
    assert difference_of(streamed(), stored(status="failed")) == "streamed as completed, stored as failed"


async def test_an_answer_that_did_not_come_is_wrong() -> None:
    cut = Answer(0.0, outcome="the server closed it", url=URL)
    short = streamed()
    short.seqs = [1]
    failed = streamed(outcome="failed")
    shelf = Shelf(stored())
    found = await check([cut, short, failed], 2, [shelf])
    assert found.wrong == [
        f"{URL}: the server closed it, 0 tokens",
        f"{URL}: completed, 1 tokens",
        f"{URL}: failed, 2 tokens",
    ]
    assert shelf.asked == []


async def test_a_store_that_breaks_off_is_wrong() -> None:
    found = await check([streamed()], 2, [Shelf(Broken("GET was answered 503"))])
    assert found.wrong == [f"{URL}: GET was answered 503"]


async def test_every_answer_is_read_back_whoever_reads() -> None:
    answers = [streamed(url=f"/v1/generations/{number}") for number in range(10)]
    shelves = [Shelf(stored()), Shelf(stored()), Shelf(stored())]
    await check(answers, 2, shelves)
    assert sorted(url for shelf in shelves for url in shelf.asked) == sorted(answer.url for answer in answers)


async def test_answers_left_unread_because_a_store_broke_off_are_wrong() -> None:
    answers = [streamed(url=f"/v1/generations/{number}") for number in range(3)]
    found = await check(answers, 2, [Shelf(Broken("the connection is gone"))])
    assert len(found.wrong) == 3
