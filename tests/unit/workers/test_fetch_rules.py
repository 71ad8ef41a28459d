"""Which URLs a tenant's rules let through."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from backplane.security.fetch_rules import NotFetchable, check, host_in
from event_schemas.fetching import FetchRules
from workers.sources.fetcher import host_of, parsed

ON = FetchRules(enabled=True)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.COM/a?b#c", "example.com"),
        ("https://example.com./", "example.com"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("http://[::1]:80/", "::1"),
    ],
)
def test_a_host_has_one_name(url: str, host: str) -> None:
    assert host_in(url) == host
    assert host_of(parsed(url)) == host
    assert not parsed(url).fragment


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "https://"),
        ("gopher://example.com/", "https://"),
        ("https:///path", "no host"),
        ("https://me:secret@example.com/", "a user or a password"),
        ("https://example.com:99999/", "not one"),
        ("https://a\x00b/", "not one"),
        ("https://example.com/" + "a" * 2048, "the limit is 2048"),
    ],
)
def test_what_cannot_be_fetched_is_named_without_what_it_holds(url: str, why: str) -> None:
    with pytest.raises(NotFetchable, match=why) as refused:
        parsed(url)
    with pytest.raises(NotFetchable, match=why):
        host_in(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "host", "of_prompt", "of_site"),
    [
        (FetchRules(), "example.com", False, True),
        (ON, "example.com", True, True),
        (FetchRules(enabled=True, deny=("example.com",)), "example.com", False, False),
        (FetchRules(enabled=True, deny=("example.com",)), "www.example.com", True, True),
        (FetchRules(enabled=True, deny=("*.example.com",)), "www.example.com", False, False),
        (FetchRules(enabled=True, deny=("*.example.com",)), "a.b.example.com", False, False),
        (FetchRules(enabled=True, deny=("*.example.com",)), "example.com", True, True),
        (FetchRules(enabled=True, deny=("*.example.com",)), "badexample.com", True, True),
        (FetchRules(enabled=True, allow=("example.com",)), "example.com", True, True),
        (FetchRules(enabled=True, allow=("example.com",)), "other.com", False, True),
        (FetchRules(enabled=True, allow=("*.com",), deny=("example.com",)), "example.com", False, False),
    ],
)
def test_denied_goes_before_allowed_and_sites_need_no_leave(
    rules: FetchRules, host: str, of_prompt: bool, of_site: bool
) -> None:
    for case, allowed in ((False, of_prompt), (True, of_site)):
        with nullcontext() if allowed else pytest.raises(NotFetchable) as refused:
            check(rules, host_in(f"https://{host.upper()}./x"), of_site=case)
        assert refused is None or host in str(refused.value) or not rules.enabled
