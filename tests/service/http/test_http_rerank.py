"""`POST /v1/rerank` over HTTP: order, shapes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.http.house import House

RERANK = "/v1/rerank"
TEXTS = [
    "Solar panels on the roof are inspected every spring.",
    "Employees are entitled to 28 days of paid leave a year.",
    "The display shows E-1042 when the pump is blocked.",
]
ASKED: dict[str, Any] = {"query": "How much vacation do I get?", "documents": TEXTS}


async def test_texts_come_back_in_the_order_in_which_they_answer(house: House) -> None:
    tenant = await house.tenant()
    reply = (await tenant.http.post(RERANK, json=ASKED)).json()
    assert reply["model"] == "all-MiniLM-L6-v2"
    assert sorted(result["index"] for result in reply["results"]) == [0, 1, 2]
    assert reply["results"][0]["index"] == 1
    scores = [result["relevance_score"] for result in reply["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert all("document" not in result for result in reply["results"])


async def test_newer_clients_of_cohere_ask_at_another_address(house: House) -> None:
    tenant = await house.tenant()
    replies = [await tenant.http.post(path, json=ASKED) for path in (RERANK, "/v2/rerank")]
    assert replies[0].json() == replies[1].json()


async def test_the_best_are_returned_with_their_text_when_asked_for(house: House) -> None:
    tenant = await house.tenant()
    documents = [{"text": TEXTS[0]}, TEXTS[1], {"text": TEXTS[2]}]
    body = ASKED | {"documents": documents, "top_n": 1, "return_documents": True}
    reply = (await tenant.http.post(RERANK, json=body)).json()
    assert [result["document"] for result in reply["results"]] == [{"text": TEXTS[1]}]


async def test_a_text_beyond_the_embedders_window_is_judged_by_its_beginning(house: House) -> None:
    tenant = await house.tenant()
    body = ASKED | {"documents": [TEXTS[0], TEXTS[1] + " And so on." * 2_000]}
    reply = await tenant.http.post(RERANK, json=body)
    assert reply.json()["results"][0]["index"] == 1


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"query": " "}, 400, "query"),
        ({"query": "x" * 9_000}, 400, "query"),
        ({"documents": []}, 400, "documents"),
        ({"documents": ["x"] * 513}, 400, "documents"),
        ({"top_n": 0}, 400, "top_n"),
        ({"surprise": 1}, 400, "surprise"),
        ({"model": "another"}, 404, None),
    ],
)
async def test_what_cannot_be_done_is_a_typed_error(
    change: dict[str, Any], status: int, param: str | None, house: House
) -> None:
    tenant = await house.tenant()
    reply = await tenant.http.post(RERANK, json=ASKED | change)
    assert reply.status_code == status, reply.text
    if param is not None:
        assert reply.json()["error"]["param"] == param


async def test_it_wants_a_key_that_may_read(house: House) -> None:
    tenant = await house.tenant()
    assert (await tenant.http.post(RERANK, json=ASKED, headers={"Authorization": ""})).status_code == 401
    writer = await tenant.key("write")
    assert (await tenant.http.post(RERANK, json=ASKED, headers=writer)).status_code == 403
