"""The only place that chooses a backend."""

from __future__ import annotations

from backplane.settings import LlmSettings, PoolSettings
from workers.inference.port import Backend


def make_backend(pool_name: str, pool: PoolSettings, llm: LlmSettings) -> Backend:
    """The backend of ``pool``, not started yet. Raises ValueError with the setting that is missing."""
    match pool.backend:
        case "scripted":
            from workers.inference.scripted import ScriptedBackend

            return ScriptedBackend(slots=pool.slots, context_window=pool.context_window)
        case "openai" | "azure":
            from workers.inference.openai_chat import OpenAIBackend

            return OpenAIBackend(
                pool.base_url,
                slots=pool.slots,
                azure_api_version=pool.api_version,
                usage="usage" in pool.capabilities,
            )
        case "anthropic" | "bedrock" | "vertex":
            from workers.inference.anthropic_messages import AnthropicBackend

            return AnthropicBackend(
                pool.base_url, slots=pool.slots, platform=pool.backend, region=pool.region, project=pool.project
            )
        case "triton":
            from workers.inference.triton import TritonBackend
            from workers.inference.triton_tensors import Tensors

            scheme, _, address = (pool.base_url or "").partition("://")
            return TritonBackend(
                address,
                tensors=Tensors.named(pool.tensor_style, pool.tensors),
                slots=pool.slots,
                tls=scheme == "grpcs",
            )
        case "xllamacpp" | "llama-cpp-python":
            from workers.inference.engine_options import EngineOptions
            from workers.inference.llama_cpp_python import LlamaCppPythonBackend
            from workers.inference.llamacpp import LlamaCppBackend

            if pool.model_files:
                from workers.inference.many_models import ManyModels

                return ManyModels(pool_name, pool, llm)
            if pool.model_file is None:
                raise ValueError(
                    f"pool {pool_name!r}: no model file; start it with `parley up`, which finds one, or set "
                    f"`model_file` under [pools.{pool_name}] in settings.toml"
                )
            engine = LlamaCppBackend if pool.backend == "xllamacpp" else LlamaCppPythonBackend
            return engine(
                pool.model_file,
                slots=pool.slots,
                context_window=pool.context_window or llm.context_window,
                gpu_layers=llm.gpu_layers,
                threads=llm.cpu_threads,
                options=EngineOptions.of(pool_name, pool),
            )
        case "transformers":
            from workers.inference.hugging_face import TransformersBackend

            return TransformersBackend(
                pool.name_at_backend(pool.model_names[0]),
                slots=pool.slots,
                context_window=pool.context_window or llm.context_window,
                threads=llm.cpu_threads,
                gpus=pool.gpus,
                pool=pool_name,
            )
