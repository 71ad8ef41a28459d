"""MkDocs' hook (`mkdocs.yml`): pages and documents that no file under `docs/` holds."""

from __future__ import annotations

import json

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from handbook import commands_page, openapi, settings_page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made from the code to the pages and documents that MkDocs found."""
    made = {
        "reference/settings.md": settings_page.page(),
        "reference/commands.md": commands_page.page(),
        "reference/openapi.json": json.dumps(openapi.document()),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files
