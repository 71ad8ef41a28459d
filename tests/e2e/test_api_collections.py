"""Collections over HTTP: upload, ready, search, a prompt that cites, delete."""

from __future__ import annotations

import pytest

from tests import documents
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers

pytestmark = pytest.mark.timeout(180)

HANDBOOK = """# Holidays

Every employee has thirty days of paid leave in a calendar year.

# Machines

Error E17 of the heat pump means that the flow sensor sees no water.
"""


async def collection(admin: Client, **body: object) -> str:
    made = await admin.http.post("/v1/collections", json={"name": "handbook", "description": "ours", **body})
    assert made.status_code == 201, made.text
    id: str = made.json()["id"]
    return id


async def ended(admin: Client, answer: Json) -> Json:
    """The document once it is ready or failed."""
    return await eventually(
        lambda: admin.get(answer["status_url"]), lambda row: row["status"] in ("ready", "failed"), within=90
    )


async def found(caller: Client, id: str, query: str) -> list[Json]:
    answer = await caller.http.post(f"/v1/collections/{id}/search", json={"query": query, "most": 3}, timeout=60)
    assert answer.status_code == 200, answer.text
    chunks: list[Json] = answer.json()["chunks"]
    return chunks


async def test_from_an_upload_to_an_answer_that_cites_it_and_to_nothing(admin: Client) -> None:
    id = await collection(admin)
    files = {
        "file": ("Handbook.docx", documents.word("Every employee has thirty days of paid leave.", heading="Leave"))
    }
    uploaded = await admin.http.post(f"/v1/collections/{id}/documents", files=files)
    assert uploaded.status_code == 202, uploaded.text
    sent = await admin.http.post(f"/v1/collections/{id}/documents", json={"name": "Handbook", "text": HANDBOOK})
    assert sent.status_code == 202, sent.text
    as_file, as_text = await ended(admin, uploaded.json()), await ended(admin, sent.json())
    assert (as_file["status"], as_file["kind"], as_file["name"]) == ("ready", "docx", "Handbook.docx")
    assert (as_text["status"], as_text["kind"], as_text["embedded"]) == ("ready", "markdown", as_text["chunks"])

    best, *_ = await found(admin, id, "What does E17 mean?")
    assert "flow sensor" in best["text"]
    assert (best["document_id"], best["document_name"]) == (as_text["id"], "Handbook")
    assert "thirty days" in (await found(admin, id, "How much vacation do I get?"))[0]["text"]

    source = {"kind": "collection", "collection_id": id, "most": 2}
    accepted = await admin.submit("What does E17 mean?", script={"echo": True}, sources=[source])
    answer = await admin.ended(accepted["generation_id"])
    assert "flow sensor sees no water" in answer["content"]
    first = answer["sources"][0]
    assert (first["number"], first["kind"], first["chunk_id"]) == (1, "collection", best["id"])
    assert (first["collection_id"], first["document_id"]) == (id, as_text["id"])

    gone = await admin.http.delete(f"/v1/collections/{id}/documents/{as_text['id']}")
    assert gone.status_code == 204
    assert all("E17" not in one["text"] for one in await found(admin, id, "What does E17 mean?"))
    assert (await admin.http.get(sent.json()["status_url"])).status_code == 404
    assert (await admin.http.delete(f"/v1/collections/{id}")).status_code == 204
    assert (await admin.http.get(f"/v1/collections/{id}")).status_code == 404
    record = await eventually(admin.events, lambda told: "collection.deleted.v1" in {one["type"] for one in told})
    types = [one["type"] for one in record]
    assert types.count("document.ingest.v1") == types.count("document.ingested.v1") == 2
    assert "flow sensor" not in str(record)
    assert "Handbook" not in str(record)


async def test_what_cannot_be_read_says_why(admin: Client) -> None:
    id = await collection(admin)
    sent = await admin.http.post(f"/v1/collections/{id}/documents", files={"file": ("a.png", b"\x89PNG\r\n\x1a\n\0\0")})
    row = await ended(admin, sent.json())
    assert (row["status"], row["reason"]) == ("failed", "unknown_kind")


async def test_a_name_is_taken_once_and_changed(admin: Client) -> None:
    id = await collection(admin)
    again = await admin.http.post("/v1/collections", json={"name": "handbook"})
    assert again.status_code == 409
    assert again.json()["collection_id"] == id
    changed = await admin.http.patch(f"/v1/collections/{id}", json={"description": "of us all"})
    assert changed.status_code == 204
    row = await admin.get(f"/v1/collections/{id}")
    assert (row["name"], row["description"], row["documents"]) == ("handbook", "of us all", 0)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"name": "x"}}, 422),
        ({"json": {"name": "x", "text": "y", "more": 1}}, 422),
        ({"content": b"words", "headers": {"content-type": "text/plain"}}, 415),
        ({"files": {"other": ("a.txt", b"words")}}, 422),
        ({"files": {"file": ("a.txt", b"x" * (21 * 1024 * 1024))}}, 413),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 422),
    ],
)
async def test_what_is_no_upload_is_refused(admin: Client, sent: Json, status: int) -> None:
    id = await collection(admin)
    answer = await admin.http.post(f"/v1/collections/{id}/documents", **sent)
    assert answer.status_code == status, answer.text


async def test_a_collection_that_is_not_there_is_named(admin: Client, callers: Callers) -> None:
    other = await collection(await callers.admin())
    source = {"kind": "collection", "collection_id": other}
    answer = await admin.http.post("/v1/prompts", json={"input": "What?", "sources": [source]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.sources.0"


async def test_a_member_searches_and_changes_nothing(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin, member = await callers.caller(tenant, "admin"), await callers.caller(tenant, "member", "ada")
    id = await collection(admin)
    assert [row["id"] for row in (await member.get("/v1/collections"))["collections"]] == [id]
    assert (await member.http.delete(f"/v1/collections/{id}")).status_code == 403
    assert await found(member, id, "anything") == []
