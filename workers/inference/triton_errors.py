"""What goes wrong at Triton, as the port's errors.

An error within a stream comes as words without a code (``ModelStreamInferResponse.error_message``), so known words are
looked for first. The server could be asked to close the stream with a gRPC code instead (the header
``triton_grpc_error``, Triton client, "GRPC Error Status Codes"), but its handling of that raced with a model that goes
on answering, so it is not.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from workers.inference.port import BackendError, BackendUnavailable, RateLimited, RequestRefused

log = logging.getLogger(__name__)

STALE: Final = "model_changed"
"""The reason where a model no longer takes the tensors that its metadata listed."""

_TOO_LONG = (
    re.compile(r"\(length (?P<prompt>\d+)\) is longer than the maximum model length of (?P<window>\d+)"),  # vLLM
    re.compile(r"longer than the maximum model length of (?P<window>\d+)"),
    re.compile(r"maximum context length is (?P<window>\d+) tokens"),
    re.compile(r"Prompt length \((?P<prompt>\d+)\) exceeds maximum input length \((?P<window>\d+)\)"),  # TensorRT-LLM
)
_UNKNOWN_MODEL = re.compile(r"Request for unknown model: '[^']*' is not found")
_NOT_READY = re.compile(
    r"has no available versions|is not at ready state|is not ready|unhealthy|shutting down|Server is stopping"
)
_OTHER_TENSORS = re.compile(
    r"unexpected inference input '|unexpected shape for input '|data-type is '\w+', but model '"
    r"|expected .{0,80}inputs.{0,40} but got \d+ inputs"
)
_QUEUE_FULL = re.compile(r"Exceeds maximum queue size")
_RESTRICTED = re.compile(r"This protocol is restricted, expecting header")
# The vLLM backend logs what is wrong with the parameters, goes on without them, and trips over that.
_BAD_SAMPLING = re.compile(r"'NoneType' object has no attribute")


def triton_error(code: str | None, said: str, *, model: str, url: str) -> BackendError:
    """``code`` is the gRPC status, None within a stream. ``said`` may quote the prompt, so it is only looked through,
    and goes to the debug log."""
    log.debug("Triton's error for model %s (%s): %s", model, code, said)
    about = f"Triton's model {model!r}" + (f", {code}" if code else "")
    for pattern in _TOO_LONG:
        if found := pattern.search(said):
            tokens = found.groupdict().get("prompt")
            counted = f"{tokens} tokens" if tokens else "more tokens than fit"
            return RequestRefused(
                "context_length_exceeded", f"the prompt has {counted}, the context window {found['window']}"
            )
    if _UNKNOWN_MODEL.search(said):
        return _unknown_model(about)
    if _NOT_READY.search(said):
        return BackendUnavailable("model_not_ready", f"the model is not ready ({about})")
    if _OTHER_TENSORS.search(said):
        return BackendUnavailable(
            STALE, f"the model takes other tensors than its metadata listed, and is looked at again ({about})"
        )
    if _QUEUE_FULL.search(said):
        return RateLimited(f"the model's queue is full ({about})", None)
    if _RESTRICTED.search(said):
        return BackendUnavailable(
            "provider_restricted",
            f"Triton asks for a header that Parley does not send; leave health, metadata, model-config and inference "
            f"out of --grpc-restricted-protocol ({about})",
        )
    if _BAD_SAMPLING.search(said) and "Error generating stream" in said:
        return _invalid(about)
    return _by_code(code, about, url)


def _by_code(code: str | None, about: str, url: str) -> BackendError:
    """A status that nothing is known of but its code (gRPC, "Status codes and their use")."""
    match code:
        case "UNAVAILABLE":
            return BackendUnavailable(
                "provider_unreachable", f"Triton at {url} cannot be reached, or broke off ({about})"
            )
        case "INVALID_ARGUMENT" | "OUT_OF_RANGE":
            return _invalid(about)
        case "NOT_FOUND":
            return _unknown_model(about)
        case "RESOURCE_EXHAUSTED":
            return RateLimited(f"Triton has no room ({about})", None)
        case "DEADLINE_EXCEEDED":
            return BackendUnavailable("provider_timeout", f"Triton at {url} did not answer in time ({about})")
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return BackendUnavailable(
                "provider_restricted", f"Triton, or what stands before it, lets nobody in ({about})"
            )
        case "UNIMPLEMENTED":
            return BackendUnavailable("provider_unreachable", f"what answers at {url} is no Triton server ({about})")
        case "CANCELLED" | "ABORTED":
            return BackendUnavailable("engine_lost", f"Triton broke off the answer ({about})")
    return BackendUnavailable("engine_failed", f"the model failed ({about})")


def _unknown_model(about: str) -> RequestRefused:
    return RequestRefused(
        "unknown_model",
        f"Triton has no such model ({about}); `models` of the pool gives its name in Triton's repository",
    )


def _invalid(about: str) -> RequestRefused:
    return RequestRefused("invalid_request", f"the model refused the request: a parameter is out of range ({about})")
