"""Collections of documents: how they are read, what makes vectors of them, and what puts what is found in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

EmbedderKind = Literal["minilm", "openai", "xllamacpp", "sentence-transformers"]
RerankerKind = Literal["endpoint", "sentence-transformers"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmbedderSettings(_Section):
    """What makes vectors. Collections name it, so its model must not change under its name: give another a new one."""

    kind: EmbedderKind = Field(
        default="minilm",
        description="`minilm`: all-MiniLM-L6-v2, which comes with Parley and was taught English",
    )
    model: str | None = Field(default=None, description="its name at the server, or on the hub; or a folder")
    base_url: str | None = Field(default=None, description="of a server like OpenAI's; none: OpenAI itself")
    key: SecretStr | None = Field(default=None, description="the server's key")
    dimensions: int | None = Field(default=None, ge=1, le=16_000, description="that the server is asked for")
    model_file: Path | None = Field(default=None, description="GGUF file of an embedding model")
    chunk_tokens: int = Field(default=250, ge=16, le=4096, description="tokens of one chunk at most")
    overlap_tokens: int = Field(default=40, ge=0, description="of those, what it repeats of the chunk before at most")

    @model_validator(mode="after")
    def _is_whole(self) -> EmbedderSettings:
        needed = {"openai": "model", "sentence-transformers": "model", "xllamacpp": "model_file"}.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"an embedder of the kind {self.kind!r} needs `{needed}`")
        if self.overlap_tokens * 2 > self.chunk_tokens:
            raise ValueError(
                f"overlap_tokens ({self.overlap_tokens}) is over half of chunk_tokens ({self.chunk_tokens}); make it"
                " smaller"
            )
        return self


class RerankerSettings(_Section):
    """What reads a question beside each of the best chunks and puts them in order."""

    kind: RerankerKind = Field(default="endpoint", description="`endpoint`: a server that speaks like Cohere's /rerank")
    url: str | None = Field(default=None, description="of the endpoint, whole: `https://…/v1/rerank`")
    model: str | None = Field(default=None, description="its name at the server, or on the hub; or a folder")
    key: SecretStr | None = Field(default=None, description="the server's key")

    @model_validator(mode="after")
    def _is_whole(self) -> RerankerSettings:
        needed = "url" if self.kind == "endpoint" else "model"
        if getattr(self, needed) is None:
            raise ValueError(f"a reranker of the kind {self.kind!r} needs `{needed}`")
        return self


class KnowledgeSettings(_Section):
    embedders: dict[str, EmbedderSettings] = Field(
        default={"minilm": EmbedderSettings()}, description="by name; the first is that of collections that name none"
    )
    reranker: RerankerSettings | None = Field(default=None, description="none: what is found stays as it was ranked")
    document_bytes: int = Field(
        default=20 * 1024 * 1024, ge=1024, le=200 * 1024 * 1024, description="largest document that is taken"
    )
    read_s: float = Field(default=60.0, gt=0, description="seconds that taking the text out of a document may need")

    @field_validator("embedders")
    @classmethod
    def _one_at_least(cls, given: dict[str, EmbedderSettings]) -> dict[str, EmbedderSettings]:
        if not given:
            raise ValueError("no embedder: name at least one under [knowledge.embedders.<name>]")
        return given

    def embedder_of(self, model: str) -> str | None:
        """The embedder that is called ``model``, or the first that runs it."""
        if model in self.embedders:
            return model
        return next((name for name, one in self.embedders.items() if one.model == model), None)

    @property
    def default_embedder(self) -> str:
        return next(iter(self.embedders))

    def for_process(self, *, with_keys: bool) -> dict[str, Any]:
        """As JSON for the environment of a child process. Keys reach only who needs them."""
        dumped = self.model_dump(mode="json", exclude_none=True, exclude=None if with_keys else _KEYS)
        for part, of in ((dumped["embedders"], self.embedders), (dumped, {"reranker": self.reranker})):
            for name, each in of.items():
                if with_keys and each is not None and each.key is not None:
                    part[name]["key"] = each.key.get_secret_value()
        return dumped


_KEYS: Any = {"embedders": {"__all__": {"key"}}, "reranker": {"key"}}
