"""The site builds without a warning, shows what the sources say, and fetches nothing from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}

pytestmark = pytest.mark.timeout(400)


class Loaded(HTMLParser):
    """What a page fetches when it is opened, and whether a list or a table was left as text in a paragraph."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.raw: list[str] = []
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        fetches = tag != "link" or given.get("rel") not in ("canonical", "next", "prev", "alternate")
        if tag in LOADING and fetches and (address := given.get(LOADING[tag])):
            self.addresses.append(address)
        if tag in ("p", "pre", "code"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._within:
            del self._within[len(self._within) - 1 - self._within[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if self._within == ["p"]:
            self.raw += re.findall(r"^(?:- |\d+\. |\| ).*", data, re.MULTILINE)


def pages(site: Path) -> Iterator[tuple[Path, Loaded]]:
    for file in sorted(site.rglob("*.html")):
        yield file, Loaded(file.read_text())


def fetches_nothing_from_elsewhere(site: Path) -> None:
    found = list(pages(site))
    assert len(found) > 60
    for file, page in found:
        for address in page.addresses:
            parts = urlsplit(address)
            assert parts.scheme in ("", "data"), f"{file.relative_to(site)} fetches {address}"
            assert not parts.netloc, f"{file.relative_to(site)} fetches {address}"
            if parts.scheme or parts.path.startswith("/"):
                continue  # the page for what is not found has its own from the root
            target = file.parent / unquote(parts.path)
            assert target.exists(), f"{file.relative_to(site)} fetches {address}, which is not there"
        # The theme's own script would fetch the programs that draw these.
        assert not re.search(r'class="(mermaid|arithmatex)"', file.read_text()), file
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text()), style


def leaves_no_list_as_text(site: Path) -> None:
    left = {str(file.relative_to(site)): page.raw for file, page in pages(site) if page.raw}
    assert left == {}


def has_what_the_code_says(site: Path) -> None:
    document = json.loads((site / "reference" / "openapi.json").read_text())
    assert {"/v1/prompts", "/v1/generations/{generation_id}/stream", "/v1/messages", "/readyz"} <= document[
        "paths"
    ].keys()
    assert (site / "asyncapi" / "asyncapi.json").read_text() == (
        ROOT / "docs" / "asyncapi" / "asyncapi.json"
    ).read_text()
    assert "PARLEY_WORKER__LEASE_S" in (site / "reference" / "settings" / "index.html").read_text()
    assert "parley pulsar setup" in (site / "reference" / "commands" / "index.html").read_text()


def test_the_site_is_whole(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert built.returncode == 0, built.stderr
    fetches_nothing_from_elsewhere(tmp_path)
    leaves_no_list_as_text(tmp_path)
    has_what_the_code_says(tmp_path)
