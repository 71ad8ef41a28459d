"""What a running Parley answered, or why it did not."""

from __future__ import annotations

from typing import Any

import httpx

from cli.failures import CommandError, TryAgain


def good(url: str, response: httpx.Response) -> dict[str, Any]:
    """What it says; ``url`` is where Parley is. Raises CommandError where it refuses, TryAgain where it fails."""
    if response.is_success:
        told: dict[str, Any] = response.json()
        return told
    try:
        problem = response.json()
        message = f"{problem.get('title', response.status_code)}: {problem.get('detail', '')}".rstrip(": ")
        for mistake in problem.get("errors", ()):
            message += f"; {mistake.get('field')}: {mistake.get('message')}"
    except (ValueError, AttributeError):
        message = f"{url} answered {response.status_code}, and not as Parley does; is the URL right?"
    if response.status_code >= 500:
        raise TryAgain(message)
    raise CommandError(message)


def unreachable(url: str, error: Exception) -> TryAgain:
    return TryAgain(f"{url} does not answer ({type(error).__name__}): start it with `parley up`, or give --url")
