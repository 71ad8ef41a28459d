import json
from pathlib import Path

from event_schemas.asyncapi import document

COMMITTED = Path(__file__).parents[2] / "docs" / "asyncapi" / "asyncapi.json"


def test_the_committed_document_is_that_of_the_code() -> None:
    assert json.loads(COMMITTED.read_text()) == document(), (
        "run `python -m event_schemas.asyncapi > docs/asyncapi/asyncapi.json`"
    )
