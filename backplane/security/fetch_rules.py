"""Which URLs may be fetched for a tenant, by their host. ``PublicTransport`` sees whether that is on the internet."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from event_schemas.fetching import FetchRules

MOST_CHARACTERS = 2048


class NotFetchable(ValueError):
    """The message names nothing of the URL but its host."""


def host_in(url: str) -> str:
    """The host of a URL that could be fetched, as rules name it. Raises NotFetchable."""
    if len(url) > MOST_CHARACTERS:
        raise NotFetchable(f"the URL has {len(url)} characters, the limit is {MOST_CHARACTERS}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise NotFetchable("the URL is not one") from None
    if port == 0 or not url.isprintable() or " " in url:
        raise NotFetchable("the URL is not one")
    if parts.scheme not in ("http", "https"):
        raise NotFetchable("the URL must begin with https://")
    if not host:
        raise NotFetchable("the URL names no host")
    if "@" in parts.netloc:
        raise NotFetchable("the URL must not hold a user or a password")
    return named(host)


def named(host: str) -> str:
    """One name for a host: lower case, international names encoded, without a closing dot."""
    try:
        return host.encode("idna").decode().lower().rstrip(".")
    except UnicodeError:
        return host.lower().rstrip(".")


def check(rules: FetchRules, host: str, *, of_site: bool) -> None:
    """``of_site``: an admin named the URL, not a prompt, so that only what is denied is in its way. Raises
    NotFetchable."""
    if not of_site and not rules.enabled:
        raise NotFetchable("prompts of this tenant may name no URLs; an admin allows it with PUT /v1/fetching")
    if _among(host, rules.deny):
        raise NotFetchable(f"{host} is denied")
    if not of_site and rules.allow and not _among(host, rules.allow):
        raise NotFetchable(f"{host} is not among the hosts that are allowed")


def _among(host: str, patterns: Iterable[str]) -> bool:
    return any(host.endswith(one[1:]) if one.startswith("*.") else host == one for one in patterns)
