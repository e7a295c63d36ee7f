"""A citation's place is shown in its document, to whom may read it now."""

from __future__ import annotations

from typing import Any

import httpx

from tests.service.http.house import Tenant

TEXT = "\n\n".join(f"Rule {n} is about hall {n}. It was made in {1900 + n}." for n in range(90))


async def _hit(tenant: Tenant, query: str) -> dict[str, Any]:
    hits = (await tenant.http.post("/v1/search", json={"query": query})).json()["hits"]
    found: dict[str, Any] = hits[0]
    return found


async def _shown(
    tenant: Tenant, document: str, headers: dict[str, str] | None = None, **asked: Any
) -> httpx.Response:
    return await tenant.http.get(f"/v1/documents/{document}/text", params=asked, headers=headers)


async def test_a_span_is_shown_with_the_text_around_it(tenant: Tenant) -> None:
    await tenant.add({"id": "rules", "title": "House rules", "text": TEXT})
    hit = await _hit(tenant, "Rule 45 about hall 45")
    start = TEXT.index("Rule 45 is about hall 45.")
    assert hit["span"]["start"] <= start < hit["span"]["end"]

    reply = await _shown(tenant, "rules", start=start, end=start + 25, around=60, chunk_id=hit["chunk_id"])

    assert reply.status_code == 200, reply.text
    assert reply.json() == {
        "document_id": "rules",
        "title": "House rules",
        "page": None,
        "heading": "",
        "span": {"start": start, "end": start + 25},
        "before": TEXT[start - 60 : start],
        "text": "Rule 45 is about hall 45.",
        "after": TEXT[start + 25 : start + 85],
    }


async def test_a_part_of_a_table_is_marked_where_it_stands_in_the_document(tenant: Tenant) -> None:
    rows = "\n".join(f"| pump {n} | {n} euros | hall {n % 7} |" for n in range(120))
    table = f"| Model | Price | Place |\n|---|---|---|\n{rows}\n"
    await tenant.add({"id": "prices", "text": table, "media_type": "text/markdown"})
    hit = await _hit(tenant, "price of pump 117")
    assert hit["text"].startswith("| Model | Price | Place |\n")
    assert hit["span"]["start"] > 0

    shown = (await _shown(tenant, "prices", around=0, **hit["span"])).json()

    assert shown["text"].startswith("| pump")
    assert hit["text"].endswith(shown["text"])


async def test_text_is_shown_only_to_whom_may_read_the_document_as_it_is_now(tenant: Tenant) -> None:
    await tenant.add({"id": "board", "text": TEXT, "groups": ["board"]})
    hit = await _hit(tenant, "hall")
    place = hit["span"]
    ours = await tenant.key(groups=frozenset({"board"}))
    others = await tenant.key(groups=frozenset({"hr"}))
    stranger = await tenant.key(tenant=f"{tenant.name}-other")
    found = [(await _shown(tenant, "board", key, **place)).status_code for key in (ours, others, stranger)]
    assert found == [200, 404, 404]

    await tenant.add({"id": "board", "text": "Now it says something else.", "groups": ["board"]})
    named = {**place, "chunk_id": hit["chunk_id"]}
    assert (await _shown(tenant, "board", **named)).status_code == 404
    assert (await _shown(tenant, "board", start=0, end=3)).json()["text"] == "Now"

    await tenant.http.delete("/v1/documents/board")
    assert (await _shown(tenant, "board", start=0, end=3)).status_code == 404


async def test_a_place_that_is_none_is_refused(tenant: Tenant) -> None:
    await tenant.add({"id": "a", "text": "Short."})
    for start, end in ((3, 3), (5, 2), (0, 60_000)):
        reply = await _shown(tenant, "a", start=start, end=end)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "end")
    assert (await _shown(tenant, "a", start=900, end=901)).status_code == 404
