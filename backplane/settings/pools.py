"""Pools of workers: which engine or provider runs which models, with which keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, field_validator, model_validator

from backplane.settings.answer_schemas import Way
from backplane.settings.capabilities import CAPABILITIES, OPENAI_COMPATIBLE, Capability

BackendName = Literal[
    "xllamacpp",
    "scripted",
    "openai",
    "azure",
    "anthropic",
    "bedrock",
    "vertex",
    "triton",
    "llama-cpp-python",
    "transformers",
]

KEYED: frozenset[BackendName] = frozenset(("openai", "azure", "anthropic", "bedrock", "vertex"))
"""Backends that ask somebody else, with a key."""

FlashAttention = Literal["auto", "on", "off"]
KvCacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]

RUNS_GGUF: frozenset[BackendName] = frozenset(("xllamacpp", "llama-cpp-python"))
"""Backends that load a GGUF file."""

_ASKED = KEYED | {"triton"}
"""Backends that somebody else runs."""

_UNBATCHED: frozenset[BackendName] = frozenset(("llama-cpp-python", "transformers"))
"""Backends whose slots share the machine and gain nothing by it."""

_ANY = "*"


class PoolSettings(BaseModel):
    """One pool of workers: a backend, and the models it serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: BackendName = Field(description="the engine or the provider's protocol that runs its prompts")
    models: tuple[str | dict[str, str], ...] = Field(
        default=(),
        description="names that prompts may ask for; the first is the default; `gpt-*` stands for all that begin so,"
        ' and `{fast = "gpt-4o-mini"}` asks the backend for gpt-4o-mini where a prompt asks for fast',
    )
    slots: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="generations that one worker runs at a time; default: 8, 64 with a provider, 1 with"
        " llama-cpp-python and transformers",
    )
    context_window: int | None = Field(default=None, ge=16, description="tokens, prompt and answer together")
    answer_tokens: int = Field(
        default=512, ge=1, description="tokens that limits reserve for an answer whose prompt names no `max_tokens`"
    )
    titles: bool = Field(
        default=False,
        description="the model makes a title of each conversation's first exchange, at its tenant's cost; else its"
        " title is its first words",
    )
    model_file: Path | None = Field(default=None, description="the GGUF file; `parley up` finds it from LLM_…")
    model_files: dict[str, Path] = Field(
        default={}, description="several GGUF files that take turns in memory: the name that prompts ask for → its file"
    )
    memory_limit: ByteSize | None = Field(
        default=None, ge=1, description="of these models together, such as 8GiB; none: what was loaded stays loaded"
    )
    license_notice: str | None = Field(
        default=None, description="shown once, at the first start; none: the packaged model's own"
    )
    gpus: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, description="GPUs that the local engine may use, numbered as by nvidia-smi; none: all there are"
    )
    tensor_split: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        default=(), max_length=16, description="the model's shares on these GPUs, such as 3, 1; none: by free memory"
    )
    flash_attention: FlashAttention = Field(default="auto", description="auto: where the engine finds that it can")
    kv_cache_type: KvCacheType = Field(
        default="f16", description="of keys and values in the local engine; q8_0 and q4_0 need flash attention"
    )
    suspended_bytes: ByteSize = Field(
        default=ByteSize(1024**3),
        ge=0,
        description="of what the engine has read of conversations that rest, kept on a worker's disk, such as 1GiB; the"
        " oldest go first; 0: nothing is kept",
    )
    base_url: str | None = Field(default=None, description="where the provider's API is; none: the provider's own")
    api_version: str | None = Field(default=None, description="of Azure's API")
    region: str | None = Field(default=None, description="of Bedrock or Vertex AI, such as us-east-1")
    project: str | None = Field(default=None, description="Google Cloud project, for Vertex AI")
    tensor_style: Literal["vllm", "tensorrt_llm"] = Field(
        default="vllm", description="which tensors Triton's models have: of its vLLM backend, or of TensorRT-LLM"
    )
    tensors: dict[str, str] = Field(default={}, description="our name of a tensor → the model's own, for Triton")
    keys: tuple[SecretStr, ...] = Field(
        default=(),
        description="provider keys: themselves, `env:NAME`, or `file:PATH`; none: OPENAI_API_KEY and the like",
    )
    requests_per_minute: int | None = Field(default=None, ge=1, description="of each key; none: no limit is known")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="of each key; none: no limit is known")
    concurrency: int | None = Field(default=None, ge=1, description="requests that run at a time with one key")
    without: tuple[Capability, ...] = Field(
        default=(), description="what these models cannot do although their backend can, such as `images`"
    )
    fallbacks: tuple[str, ...] = Field(
        default=(),
        max_length=8,
        description="models or pools that serve a prompt which this one cannot, the best first; a pool stands for its"
        " default model",
    )
    tries: int = Field(default=4, ge=1, le=20, description="requests to the provider until one gets its first token")
    give_up_s: float = Field(default=60.0, gt=0, description="after so long none of these begins any more")
    first_token_s: float | None = Field(
        default=None, gt=0, description="longest wait for the first token; none: 120 with a provider, else no limit"
    )
    gap_s: float | None = Field(
        default=None, gt=0, description="longest wait between two tokens; none: 60 with a provider, else no limit"
    )

    @model_validator(mode="before")
    @classmethod
    def _backends_differ_in_their_defaults(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("backend") in _ASKED:
            return {"slots": 64, "first_token_s": 120.0, "gap_s": 60.0, **given}
        if isinstance(given, Mapping) and given.get("backend") in _UNBATCHED:
            return {"slots": 1, **given}
        return given

    @model_validator(mode="before")
    @classmethod
    def _files_have_the_names_that_prompts_ask_for(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("model_files") and not given.get("models"):
            return {**given, "models": tuple(given["model_files"])}
        return given

    @field_validator("models")
    @classmethod
    def _stars_end_names(cls, models: tuple[str | dict[str, str], ...]) -> tuple[str | dict[str, str], ...]:
        for name in _names(models):
            if not name or _ANY in name[:-1]:
                raise ValueError(f"model {name!r}: a name may end with *, and have none elsewhere")
        return models

    @model_validator(mode="after")
    def _has_what_its_backend_needs(self) -> PoolSettings:
        if self.backend in _ASKED and not self.models:
            raise ValueError(f'a pool with the backend {self.backend} needs `models`, such as models = ["gpt-4o-mini"]')
        loaded = {self.name_at_backend(name) for name in self.model_names}
        if self.backend == "transformers" and (len(loaded) != 1 or self.default_model is None):
            raise ValueError(
                "a pool with the backend transformers needs `models` with the one model that it loads: a folder, or a "
                'repository of the hub, such as models = [{small = "Qwen/Qwen3-0.6B"}]'
            )
        if self.backend == "azure" and (self.base_url is None or self.api_version is None):
            raise ValueError("a pool with the backend azure needs `base_url` (of the resource) and `api_version`")
        if self.backend in ("bedrock", "vertex") and self.region is None:
            raise ValueError(f"a pool with the backend {self.backend} needs `region`, such as us-east-1")
        if self.backend == "vertex" and (self.project is None or not self.keys):
            raise ValueError("a pool with the backend vertex needs `project`, and `keys` such as ['file:account.json']")
        if self.backend == "triton" and self.base_url is None:
            raise ValueError("a pool with the backend triton needs `base_url`, such as grpc://127.0.0.1:8001")
        schemes = ("grpc://", "grpcs://") if self.backend == "triton" else ("http://", "https://")
        if self.base_url is not None and not self.base_url.startswith(schemes):
            raise ValueError(f"base_url {self.base_url!r}: must begin with {' or '.join(schemes)}")
        return self

    @model_validator(mode="after")
    def _model_files_fit(self) -> PoolSettings:
        if not self.model_files:
            if self.memory_limit is not None:
                raise ValueError("memory_limit is for a pool with several `model_files`; name them, or take it out")
            return self
        if self.backend != "xllamacpp":
            raise ValueError(f"a pool with the backend {self.backend} has no `model_files`; xllamacpp has")
        if self.model_file is not None:
            raise ValueError("a pool has either `model_file` or `model_files`; name the one file among the others")
        for name in self.model_names:
            if self.name_at_backend(name) not in self.model_files:
                raise ValueError(f"model {name!r} has no file; `model_files` names {', '.join(self.model_files)}")
        return self

    @model_validator(mode="after")
    def _engine_options_fit(self) -> PoolSettings:
        if self.gpus is not None and len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"gpus {list(self.gpus)}: a GPU is named twice; name each once")
        if self.backend == "transformers" and len(self.gpus or ()) > 1:
            raise ValueError(f"gpus {list(self.gpus or ())}: the backend transformers uses one GPU; name one")
        if self.tensor_split:
            if sum(self.tensor_split) == 0:
                raise ValueError("tensor_split has no share above 0; give at least one GPU a share")
            if self.gpus is not None and len(self.gpus) != len(self.tensor_split):
                raise ValueError(
                    f"tensor_split has {len(self.tensor_split)} shares, and gpus names {len(self.gpus)}; give one share"
                    " for each"
                )
        if self.kv_cache_type.startswith("q") and self.flash_attention == "off":
            raise ValueError(
                f'kv_cache_type = "{self.kv_cache_type}" needs flash attention; set flash_attention = "on", or'
                ' kv_cache_type = "f16"'
            )
        return self

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What prompts may ask of this pool's models."""
        known = CAPABILITIES[self.backend]
        if self.backend == "openai" and self.base_url is not None:
            known |= OPENAI_COMPATIBLE
        return known - frozenset(self.without)

    def way(self, strict: bool | None) -> Way:
        """How this pool's models are brought to answer by a schema; ``strict`` is what the prompt says of it."""
        if "json_schema" not in self.capabilities:
            return "instruction"
        if self.backend in RUNS_GGUF:
            return "grammar"
        if self.backend in ("openai", "azure"):
            return "openai_strict" if strict else "openai"
        return "anthropic"

    def serves(self, model: str) -> bool:
        """Whether prompts may ask this pool for ``model``."""
        return any(_covers(name, model) for name in self.model_names)

    def listed(self, model: str) -> str:
        """The name among ``model_names`` that ``model`` is served by; `other` where they have none for it."""
        return next((name for name in self.model_names if _covers(name, model)), "other")

    def name_at_backend(self, model: str) -> str:
        """What the backend calls ``model``."""
        return next((one[model] for one in self.models if isinstance(one, dict) and model in one), model)

    @property
    def model_names(self) -> tuple[str, ...]:
        """What prompts may ask for; names that end with * stand for many."""
        return _names(self.models)

    @property
    def default_model(self) -> str | None:
        """The first model that has a whole name."""
        return next((name for name in self.model_names if not name.endswith(_ANY)), None)


def _covers(name: str, model: str) -> bool:
    return model == name or (name.endswith(_ANY) and model.startswith(name[:-1]))


def _names(models: tuple[str | dict[str, str], ...]) -> tuple[str, ...]:
    return tuple(name for one in models for name in ((one,) if isinstance(one, str) else one))
