"""The only place that chooses embedders and rerankers."""

from __future__ import annotations

from backplane.settings.knowledge import EmbedderSettings, RerankerSettings
from workers.embedding.port import Embedder
from workers.embedding.reranking import Reranker


def make_embedder(wanted: EmbedderSettings) -> Embedder:
    """Not started yet."""
    key = None if wanted.key is None else wanted.key.get_secret_value()
    match wanted.kind:
        case "minilm":
            from workers.embedding.minilm import MiniLm

            return MiniLm()
        case "openai":
            from workers.inference.openai_embeddings import OpenAIEmbedder

            assert wanted.model is not None
            return OpenAIEmbedder(wanted.model, base_url=wanted.base_url, key=key, dimensions=wanted.dimensions)
        case "xllamacpp":
            from workers.inference.llamacpp_embeddings import LlamaCppEmbedder

            assert wanted.model_file is not None
            return LlamaCppEmbedder(wanted.model_file, window=max(512, 2 * wanted.chunk_tokens))
        case "sentence-transformers":
            from workers.inference.sentence_embeddings import SentenceEmbedder

            assert wanted.model is not None
            return SentenceEmbedder(wanted.model)


def make_reranker(wanted: RerankerSettings) -> Reranker:
    """Not started yet."""
    if wanted.kind == "sentence-transformers":
        from workers.inference.sentence_embeddings import SentenceReranker

        assert wanted.model is not None
        return SentenceReranker(wanted.model)
    from workers.embedding.rerank_endpoint import RerankEndpoint

    assert wanted.url is not None
    return RerankEndpoint(
        wanted.url, model=wanted.model, key=None if wanted.key is None else wanted.key.get_secret_value()
    )
