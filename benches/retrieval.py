"""How well a collection's chunks are found: `python -m benches --only retrieval`.

Passages and questions are our own and lie in `labelled/`; each question names the passages that answer it, and its
kind. What is measured is the retrieval of the ingest service, on a Postgres of its own, with real embeddings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.database import Database
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKeys
from backplane.settings.knowledge import KnowledgeSettings
from backplane.wiring.embedded import completed, role_database
from backplane.wiring.operations import set_up
from backplane.wiring.services import open_data_keys
from benches.installation import Installation
from benches.machine import Machine, machine
from benches.report import machine_lines
from benches.server import running_alone
from benches.tables import table
from command_api.collections import Collections
from workers.knowledge.chunk_store import ChunkStore, NewChunk, Place
from workers.knowledge.embedders import Embedders
from workers.knowledge.fusion import fused
from workers.knowledge.retrieval import Retrieval

WITHIN = 5
_LABELLED = Path(__file__).parent / "labelled"
_EMBEDDER = "minilm"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    kind: str
    text: str
    answered_by: frozenset[str]


def passages() -> dict[str, str]:
    """Name → what it says."""
    found: dict[str, str] = dict(json.loads((_LABELLED / "passages.json").read_text()))
    return found


def questions() -> list[Question]:
    return [
        Question(kind, text, frozenset(names))
        for kind, text, names in json.loads((_LABELLED / "questions.json").read_text())
    ]


class Quality(BaseModel):
    """Of one way of looking, over some questions."""

    model_config = ConfigDict(frozen=True)

    recall: float = Field(description=f"share of the answering passages that are among the first {WITHIN}")
    mrr: float = Field(description="mean of one over the place of the first that answers")

    @classmethod
    def of(cls, asked: Sequence[Question], rankings: Sequence[Sequence[str]]) -> Quality:
        recalls, reciprocals = [], []
        for question, ranking in zip(asked, rankings, strict=True):
            first = ranking[:WITHIN]
            recalls.append(len(question.answered_by.intersection(first)) / len(question.answered_by))
            places = [place for place, name in enumerate(ranking, 1) if name in question.answered_by]
            reciprocals.append(1 / places[0] if places else 0.0)
        return cls(recall=sum(recalls) / len(recalls), mrr=sum(reciprocals) / len(reciprocals))


class Way(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    overall: Quality
    by_kind: dict[str, Quality]


class RetrievalPlan(BaseModel):
    model_config = ConfigDict(frozen=True)

    knowledge: KnowledgeSettings = Field(description="its reranker counts too, where it names one")
    steps: int = 3


class RetrievalRun(BaseModel):
    model_config = ConfigDict(frozen=True)

    machine: Machine
    passages: int
    questions: int
    ways: list[Way]
    question_ms: float = Field(description="one question by meaning and by words, with its embedding; median")
    wrong: list[str] = []


async def labelled_collection(
    commands: Database, work: Database, data_keys: DataKeys, embedders: Embedders
) -> tuple[UUID, UUID, dict[UUID, str]]:
    """A collection of all passages. Returns its tenant, itself, and the passage that each chunk is."""
    tenant_id = new_id()
    collections = Collections(commands, data_keys, {_EMBEDDER: embedders.settings_of(_EMBEDDER)})
    made = await collections.create(
        tenant_id, "labelled", description=None, embedder=_EMBEDDER, language="english", actor="bench"
    )
    said = passages()
    raw = "\n\n".join(said.values()).encode()
    document_id, _ = await collections.add_document(tenant_id, made.id, "passages", raw, actor="bench")
    embedder = await embedders.get(_EMBEDDER)
    vectors = await embedder.embed(list(said.values()), "passage")
    store, place = ChunkStore(work), Place(tenant_id, made.id, document_id, new_id())
    await store.begin(place)
    new = [
        NewChunk(ordinal, "", text, vector)
        for ordinal, (text, vector) in enumerate(zip(said.values(), vectors, strict=True))
    ]
    await store.add(place, made.language, embedder.identity, new)
    await store.end(place, b"made by a bench", shown=True)
    async with work.tenant(tenant_id) as session:
        rows = await session.all(
            "SELECT chunk_id, ordinal FROM knowledge.chunks WHERE document_id = :id", id=document_id
        )
    names = list(said)
    return tenant_id, made.id, {row["chunk_id"]: names[row["ordinal"]] for row in rows}


async def measured(
    commands: Database, work: Database, data_keys: DataKeys, embedders: Embedders
) -> tuple[list[Way], float]:
    """Each way, and the median of milliseconds that one question takes by meaning and by words."""
    tenant_id, collection_id, names = await labelled_collection(commands, work, data_keys, embedders)
    retrieval = Retrieval(work, embedders)
    asked = questions()
    found: dict[str, list[list[str]]] = {"vector": [], "text": [], "hybrid": []}
    took = []
    for question in asked:
        began = time.perf_counter()
        rankings = await retrieval.rankings(tenant_id, collection_id, question.text)
        took.append((time.perf_counter() - began) * 1000)
        hybrid = [chunk_id for chunk_id, _ in fused(rankings.by_meaning, rankings.by_words)]
        for name, ranking in (("vector", rankings.by_meaning), ("text", rankings.by_words), ("hybrid", hybrid)):
            found[name].append([names[chunk_id] for chunk_id in ranking])
    if await embedders.reranker() is not None:
        found["reranked"] = [
            [names[each.chunk_id] for each in await retrieval.search(tenant_id, collection_id, question.text, 20)]
            for question in asked
        ]
    return [_way(name, asked, rankings) for name, rankings in found.items()], sorted(took)[len(took) // 2]


async def measure_retrieval(plan: RetrievalPlan, folder: Path, tell: Tell) -> RetrievalRun:
    """All of ``plan``, with data in ``folder``. Raises EmbeddingError, and what the database raises."""
    here = machine()
    settings = Installation.make(folder / "retrieval", 1, None).settings
    tell("starting Postgres")
    async with running_alone(settings, []):
        await set_up(settings)
        tell("loading the embedder")
        embedders = Embedders(plan.knowledge.embedders, plan.knowledge.reranker)
        commands, work = role_database(settings, "command_api"), role_database(settings, "worker")
        try:
            await embedders.get(_EMBEDDER)
            tell("asking")
            async with open_data_keys(completed(settings)) as data_keys:
                ways, question_ms = await measured(commands, work, data_keys, embedders)
        finally:
            await embedders.close()
            await commands.close()
            await work.close()
    return RetrievalRun(
        machine=here, passages=len(passages()), questions=len(questions()), ways=ways, question_ms=question_ms
    )


def retrieval_markdown(run: RetrievalRun) -> str:
    kinds = list(run.ways[0].by_kind)
    rows = [
        [
            way.name,
            f"{way.overall.recall:.3f}",
            f"{way.overall.mrr:.3f}",
            *(f"{way.by_kind[kind].recall:.2f} / {way.by_kind[kind].mrr:.2f}" for kind in kinds),
        ]
        for way in run.ways
    ]
    title = f"Retrieval: {run.questions} questions, {run.passages} passages, {run.question_ms:.0f} ms a question"
    head = ["way", f"recall@{WITHIN}", "MRR", *kinds]
    return "\n".join([*machine_lines(run.machine), *table(title, head, rows)])


def _way(name: str, asked: Sequence[Question], rankings: Sequence[Sequence[str]]) -> Way:
    kinds = dict.fromkeys(question.kind for question in asked)
    of_kind = {
        kind: [(question, ranking) for question, ranking in zip(asked, rankings, strict=True) if question.kind == kind]
        for kind in kinds
    }
    return Way(
        name=name,
        overall=Quality.of(asked, rankings),
        by_kind={kind: Quality.of(*zip(*pairs, strict=True)) for kind, pairs in of_kind.items()},
    )
