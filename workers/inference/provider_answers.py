"""What providers' HTTP answers say beside the text: how long to wait, what a key has left, what went wrong."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from workers.inference.port import (
    BackendError,
    KeyRefused,
    Limits,
    NotServed,
    RateLimited,
    RequestRefused,
)

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_LONGEST_WAIT_S = 24 * 3600.0


def seconds_of(duration: str) -> float | None:
    """``6m0s``, ``1.5s``, ``120ms`` in seconds (OpenAI, "Rate limits in headers"); None where it is none of these."""
    match = _DURATION.fullmatch(duration.strip())
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait (RFC 9110, section 10.2.3, and OpenAI's ``retry-after-ms``)."""
    with_unit = headers.get("retry-after-ms")
    if with_unit is not None and (milliseconds := _number(with_unit)) is not None:
        return min(milliseconds / 1000, _LONGEST_WAIT_S)
    said = headers.get("retry-after")
    if said is None:
        return None
    seconds = _number(said)
    if seconds is None:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_S)


def openai_limits(headers: Mapping[str, str]) -> Limits | None:
    """The ``x-ratelimit-…`` headers; None where there are none."""
    if "x-ratelimit-limit-requests" not in headers and "x-ratelimit-limit-tokens" not in headers:
        return None
    return Limits(
        requests_per_minute=_count(headers.get("x-ratelimit-limit-requests")),
        tokens_per_minute=_count(headers.get("x-ratelimit-limit-tokens")),
        requests_left=_count(headers.get("x-ratelimit-remaining-requests")),
        tokens_left=_count(headers.get("x-ratelimit-remaining-tokens")),
        requests_reset_s=seconds_of(headers.get("x-ratelimit-reset-requests", "")),
        tokens_reset_s=seconds_of(headers.get("x-ratelimit-reset-tokens", "")),
    )


def anthropic_limits(headers: Mapping[str, str]) -> Limits | None:
    """The ``anthropic-ratelimit-…`` headers (Anthropic, "Rate limits"); None where there are none."""
    if "anthropic-ratelimit-requests-limit" not in headers and "anthropic-ratelimit-tokens-limit" not in headers:
        return None
    return Limits(
        requests_per_minute=_count(headers.get("anthropic-ratelimit-requests-limit")),
        tokens_per_minute=_count(headers.get("anthropic-ratelimit-tokens-limit")),
        requests_left=_count(headers.get("anthropic-ratelimit-requests-remaining")),
        tokens_left=_count(headers.get("anthropic-ratelimit-tokens-remaining")),
        requests_reset_s=_until(headers.get("anthropic-ratelimit-requests-reset")),
        tokens_reset_s=_until(headers.get("anthropic-ratelimit-tokens-reset")),
    )


def refusal(
    status: int,
    code: str | None,
    where: str | None = None,
    *,
    retry_after_s: float | None = None,
    limits: Limits | None = None,
    tokens: int | None = None,
) -> BackendError:
    """An HTTP status of 400 or more as the port's error.

    ``code`` is the provider's own word for it, ``where`` the parameter it is about. The provider's message is not
    taken over, since it may quote the prompt. ``tokens`` is the model's window, as far as that is known.
    """
    about = f"HTTP {status}" + (f", {code}" if code else "") + (f", at {where}" if where else "")
    if status == 429 and code in ("insufficient_quota", "billing_hard_limit_reached"):
        return KeyRefused("key_exhausted", f"the account of the key has nothing left ({about})")
    if status == 429:
        return RateLimited(f"the provider has no room for the key ({about})", retry_after_s, limits)
    if status in (401, 403):
        return KeyRefused("key_refused", f"the provider does not take the key ({about})")
    if code == "context_length_exceeded":
        window = f"the {tokens} tokens of the model" if tokens else "the model"
        return RequestRefused("context_length_exceeded", f"the prompt and its answer do not fit {window} ({about})")
    if status == 404:
        return RequestRefused("unknown_model", f"the provider knows no such model ({about})")
    if status == 413:
        return RequestRefused("request_too_large", f"the provider takes no request as large as this ({about})")
    if status in (408, 409, 425) or status >= 500:
        return NotServed("provider_failed", f"the provider failed ({about})")
    return RequestRefused("invalid_request", f"the provider refused the request ({about})")


def never_connected(error: BaseException) -> bool:
    """Whether the connection was never there, so that nothing can have been asked over it. The SDKs' HTTP clients call
    that a timeout, and only the cause at the bottom tells."""
    import aiohttp

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return True
        cause = cause.__cause__
    return False


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _count(text: str | None) -> int | None:
    number = None if text is None else _number(text)
    return None if number is None else int(number)


def _until(timestamp: str | None) -> float | None:
    try:
        return max(0.0, (datetime.fromisoformat(timestamp or "") - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
