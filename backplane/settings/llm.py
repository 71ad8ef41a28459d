"""The embedded model."""

from __future__ import annotations

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LlmSettings(BaseSettings):
    """The embedded model, under the names that llama.cpp users know."""

    model_config = SettingsConfigDict(
        env_prefix="LLM_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    model_file: str | None = Field(
        default=None,
        validation_alias=AliasChoices("LLM_MODEL_FILE", "LLAMA_MODEL_FILE"),
        description="path of a GGUF file, or its name in `models/`",
    )
    huggingface_repo: str | None = Field(default=None, description="hub repository with GGUF files")
    huggingface_file: str | None = Field(default=None, description="file in that repository; wildcards allowed")
    gpu_layers: int = Field(default=-1, ge=-1, description="layers on the GPU; -1: all")
    context_window: int | None = Field(
        default=None,
        ge=16,
        validation_alias=AliasChoices("LLM_CONTEXT_WINDOW", "LLAMA_CONTEXT_SIZE"),
        description="tokens; default: the smaller of 4096 and what the model has",
    )
    cpu_threads: int | None = Field(default=None, ge=1, description="default: one less than the machine's cores")
