# ruff: noqa: E501
"""Every bad request gets its status, its code and a sentence; the process answers afterwards."""

from __future__ import annotations

import gzip
import re
from typing import Any

import httpx
import pytest

from tests.service.http.house import House, Tenant

CHAT, SEARCH, SUMMARY = "/v1/chat/completions", "/v1/search", "/v1/summarize"
EMBED, DOCUMENTS = "/v1/embeddings", "/v1/documents"
JSON = {"Content-Type": "application/json"}


def user(content: Any = "hello") -> dict[str, Any]:
    return {"role": "user", "content": content}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "plumbline", "messages": [user()], **more}


def filtered(conditions: dict[str, Any]) -> dict[str, Any]:
    return {"json": {"query": "x", "filter": conditions}}


def documented(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"json": {"documents": [{"text": "a", "metadata": metadata}]}}


NESTED: dict[str, Any] = {"a": 1}
for _ in range(9):
    NESTED = {"$not": NESTED}

# (method, path, what httpx is told, status, code, param)
PACKED = {**JSON, "Content-Encoding": "gzip"}
CASES: list[tuple[str, str, dict[str, Any], int, str, str | None]] = [
    ("POST", CHAT, {"content": b"{", "headers": JSON}, 400, "invalid_json", None),
    ("POST", CHAT, {"content": b"\xff\xfe\xfa", "headers": JSON}, 400, "invalid_json", None),
    ("POST", CHAT, {"content": b"[1]", "headers": JSON}, 400, "invalid_body", None),
    ("POST", CHAT, {"content": b"", "headers": JSON}, 400, "invalid_body", None),
    ("POST", CHAT, {"content": b'{"messages": []}'}, 400, "invalid_body", None),
    ("POST", CHAT, {"content": b"[" * 100_000, "headers": JSON}, 400, "invalid_json", None),
    ("POST", CHAT, {"content": b"9" * 10_000, "headers": JSON}, 400, "invalid_json", None),
    ("POST", CHAT, {"content": b'{"seed": ' + b"9" * 5_000 + b"}", "headers": JSON}, 400, "invalid_json", None),
    ("POST", CHAT, {"json": {"messages": [user()], "tempreature": 1}}, 400, "unknown_parameter", "tempreature"),
    ("POST", CHAT, {"json": {}}, 400, "missing_required_parameter", "messages"),
    ("POST", CHAT, {"json": chat(messages=[])}, 400, "invalid_value", "messages"),
    ("POST", CHAT, {"json": chat(messages="hi")}, 400, "invalid_value", "messages"),
    ("POST", CHAT, {"json": chat(messages=[{"role": "king", "content": "x"}])}, 400, "invalid_value", None),
    ("POST", CHAT, {"json": chat(messages=[user(None)])}, 400, "missing_required_parameter", None),
    ("POST", CHAT, {"json": chat(messages=[user("  ")])}, 400, "invalid_value", "messages[0].content"),
    ("POST", CHAT, {"json": chat(messages=[user("\x00")])}, 400, "invalid_value", "messages[0].content"),
    ("POST", CHAT, {"json": chat(messages=[user("x" * 1_001)])}, 400, "context_length_exceeded", None),
    ("POST", CHAT, {"json": chat(messages=[user("x" * 900)] * 40)}, 400, "context_length_exceeded", None),
    ("POST", CHAT, {"json": chat(messages=[user(), {"role": "assistant"}])}, 400, "invalid_value", None),
    ("POST", CHAT, {"json": chat(messages=[user([{"type": "image_url"}])])}, 400, "unsupported_content", None),
    ("POST", CHAT, {"json": chat(n=2)}, 400, "unsupported_parameter", "n"),
    ("POST", CHAT, {"json": chat(tools=[{"type": "function"}])}, 400, "unsupported_parameter", "tools"),
    ("POST", CHAT, {"json": chat(response_format={"type": "json_object"})}, 400, "unsupported_parameter", None),
    ("POST", CHAT, {"json": chat(presence_penalty=1)}, 400, "unsupported_parameter", "presence_penalty"),
    ("POST", CHAT, {"json": chat(temperature=3)}, 400, "invalid_value", "temperature"),
    ("POST", CHAT, {"content": b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}', "headers": JSON},
     400, "invalid_value", "temperature"),
    ("POST", CHAT, {"json": chat(max_tokens=0)}, 400, "invalid_value", "max_tokens"),
    ("POST", CHAT, {"json": chat(stop=["a"] * 5)}, 400, "invalid_value", "stop"),
    ("POST", CHAT, {"json": chat(stop=5)}, 400, "invalid_value", "stop"),
    ("POST", CHAT, {"json": chat(messages=[{"role": "user", "content": 5}])}, 400, "invalid_value", "messages[0].content"),
    ("POST", CHAT, {"json": chat(messages=[{"role": "user", "content": [5]}])}, 400, "invalid_value", "messages[0].content"),
    ("POST", "/v1/rerank", {"json": {"query": "a", "documents": [5]}}, 400, "invalid_value", "documents[0]"),
    ("POST", "/v1/rerank", {"json": {"query": "a", "documents": [{}]}}, 400, "missing_required_parameter",
     "documents[0].text"),
    ("POST", CHAT, {"json": chat(model="gpt-4o")}, 404, "model_not_found", "model"),
    ("POST", CHAT, {"json": chat(plumbline=5)}, 400, "invalid_value", "plumbline"),
    ("POST", CHAT, {"json": chat(plumbline={"tenant": "x"})}, 400, "unknown_parameter", "plumbline.tenant"),
    ("POST", CHAT, {"json": chat(plumbline={"filter": {"a b": 1}})}, 400, "filter_invalid", "plumbline.filter"),
    ("POST", CHAT, {"json": chat(), "headers": {"X-Request-Timeout": "soon"}}, 400, "invalid_value", "X-Request-Timeout"),
    ("POST", CHAT, {"json": chat(), "headers": {"X-Request-Timeout": "nan"}}, 400, "invalid_value", "X-Request-Timeout"),
    ("POST", CHAT, {"content": b" " * (4 * 2**20 + 1), "headers": JSON}, 413, "body_too_large", None),
    ("GET", CHAT, {}, 405, "method_not_allowed", None),
    ("POST", SEARCH, {"content": gzip.compress(b'{"query": "x"}'), "headers": PACKED}, 415, "unsupported_type", None),
    ("PUT", f"{DOCUMENTS}/a", {"content": gzip.compress(b"x"), "headers": PACKED}, 415, "unsupported_type", None),
    ("POST", SEARCH, {"json": {"query": ""}}, 400, "invalid_value", "query"),
    ("POST", SEARCH, {"json": {"query": "x" * 1_001}}, 400, "context_length_exceeded", "query"),
    ("POST", SEARCH, {"json": {"query": "x", "limit": 0}}, 400, "invalid_value", "limit"),
    ("POST", SEARCH, {"json": {"query": "x", "limit": 10**9}}, 400, "invalid_value", "limit"),
    ("POST", SEARCH, {"json": {"query": "x", "group": "page"}}, 400, "invalid_value", "group"),
    ("POST", SEARCH, {"json": {"query": "x", "collection": "nowhere"}}, 404, "collection_not_found", "collection"),
    ("POST", SEARCH, {"json": {"query": "x", "collections": ["no", "nor"]}}, 404, "collection_not_found", "collections[0]"),
    ("POST", CHAT, {"json": chat(plumbline={"collection": "no"})}, 404, "collection_not_found", "plumbline.collection"),
    ("POST", CHAT, {"json": chat(plumbline={"collections": ["no"]})}, 404, "collection_not_found", "plumbline.collections[0]"),
    ("POST", SUMMARY, {"json": {"collections": ["no"]}}, 404, "collection_not_found", "collections[0]"),
    ("GET", f"{DOCUMENTS}?collection=no", {}, 404, "collection_not_found", "collection"),
    ("GET", "/v1/jobs?collection=no", {}, 404, "collection_not_found", "collection"),
    ("POST", f"{DOCUMENTS}/delete", {"json": {"collection": "no"}}, 404, "collection_not_found", "collection"),
    ("POST", "/v1/erase", {"json": {"ids": ["no", "nor"]}}, 404, "document_not_found", "ids[0]"),
    ("POST", SEARCH, {"json": {"query": "x", "collection": "' OR 1=1 --"}}, 404, "collection_not_found", "collection"),
    ("POST", SEARCH, {"json": {"query": "x", "collection": "a", "collections": ["b"]}}, 400, "invalid_value", None),
    ("POST", SEARCH, {"json": {"query": "x", "collections": []}}, 400, "invalid_value", "collections"),
    ("POST", SEARCH, {"json": {"query": "x", "document_ids": []}}, 400, "invalid_value", "document_ids"),
    ("POST", CHAT, {"json": chat(plumbline={"collections": []})}, 400, "invalid_value", "plumbline.collections"),
    ("POST", SEARCH, {"json": {"query": "x", "limit": True}}, 400, "invalid_value", "limit"),
    ("POST", CHAT, {"json": chat(max_tokens=True)}, 400, "invalid_value", "max_tokens"),
    ("POST", SEARCH, filtered({"a": {"$above": 1}}), 400, "filter_invalid", "filter.a.$above"),
    ("POST", SEARCH, filtered({"a": {}}), 400, "filter_invalid", "filter.a"),
    ("POST", SEARCH, filtered({"a": {"$gt": "soon"}}), 400, "filter_invalid", "filter.a.$gt"),
    ("POST", SEARCH, filtered({"a": {"$gt": True}}), 400, "filter_invalid", "filter.a.$gt"),
    ("POST", SEARCH, filtered({"a": {"$gt": 1, "$gte": 1}}), 400, "filter_invalid", "filter"),
    ("POST", SEARCH, filtered({"a": {"$exists": 1}}), 400, "filter_invalid", "filter.a.$exists"),
    ("POST", SEARCH, filtered({"a": {"$in": "x"}}), 400, "filter_invalid", "filter.a.$in"),
    ("POST", SEARCH, filtered({"$or": []}), 400, "filter_invalid", "filter.$or"),
    ("POST", SEARCH, filtered({"$or": [{"a": 1}, {}]}), 400, "filter_invalid", "filter.$or[1]"),
    ("POST", SEARCH, filtered({"$not": {"b": {"$near": 1}}}), 400, "filter_invalid", "filter.$not.b.$near"),
    ("POST", SEARCH, filtered({"$where": "1"}), 400, "filter_invalid", "filter.$where"),
    ("POST", SEARCH, filtered(NESTED), 400, "filter_invalid", "filter" + ".$not" * 8),
    ("POST", SEARCH, filtered({f"f{n}": 1 for n in range(51)}), 400, "filter_invalid", "filter"),
    ("POST", SEARCH, {"json": {"query": "x", "filter": {'a"] == 1 or x["b': 1}}}, 400, "filter_invalid", "filter"),
    ("POST", SEARCH, {"json": {"query": "x", "filter": {"a": []}}}, 400, "filter_invalid", "filter.a"),
    ("POST", SEARCH, {"json": {"query": "x", "filter": {"a": 2**70}}}, 400, "filter_invalid", "filter.a"),
    ("POST", SEARCH, {"json": {"query": "x", "document_ids": ["a/b"]}}, 400, "invalid_value", None),
    ("POST", SEARCH, {"json": {"query": "x", "tenant": "other"}}, 400, "unknown_parameter", "tenant"),
    ("POST", SUMMARY, {"json": {}}, 400, "invalid_value", "text"),
    ("POST", SUMMARY, {"json": {"text": "a", "collection": "b"}}, 400, "invalid_value", "text"),
    ("POST", SUMMARY, {"json": {"collection": "a", "collections": ["b"]}}, 400, "invalid_value", "text"),
    ("POST", SUMMARY, {"json": {"collections": []}}, 400, "invalid_value", "collections"),
    ("POST", SUMMARY, {"json": {"focus": "  "}}, 400, "invalid_value", "text"),
    ("POST", SUMMARY, {"json": {"document_ids": ["nothing"]}}, 404, "document_not_found", "document_ids[0]"),
    ("POST", SUMMARY, {"json": {"text": "   "}}, 400, "nothing_to_summarize", None),
    ("POST", SUMMARY, {"json": {"text": "a", "max_words": 1}}, 400, "invalid_value", "max_words"),
    ("POST", EMBED, {"json": {"input": []}}, 400, "invalid_value", "input"),
    ("POST", EMBED, {"json": {"input": [[1, 2]]}}, 400, "invalid_value", "input"),
    ("POST", EMBED, {"json": {"input": ["a", ""]}}, 400, "invalid_value", "input[1]"),
    ("POST", EMBED, {"json": {"input": "word " * 5_000}}, 400, "context_length_exceeded", None),
    ("POST", EMBED, {"json": {"input": "x", "model": "ada"}}, 404, "model_not_found", "model"),
    ("POST", EMBED, {"json": {"input": "x", "dimensions": 3}}, 400, "invalid_value", "dimensions"),
    ("POST", DOCUMENTS, {"content": b"x", "headers": {"Content-Type": "text/csv"}}, 415, "unsupported_type", None),
    ("POST", DOCUMENTS, {"content": b"{", "headers": JSON}, 400, "invalid_json", None),
    ("POST", DOCUMENTS, {"json": {"documents": []}}, 400, "invalid_value", "documents"),
    ("POST", DOCUMENTS, {"json": {"documents": [{"text": "a", "grups": ["hr"]}]}}, 400, "unknown_parameter",
     "documents[0].grups"),
    ("POST", DOCUMENTS, {"json": {"documents": [{"text": ""}]}}, 400, "empty_document", None),
    ("POST", DOCUMENTS, {"json": {"documents": [{"text": "a", "id": "a/b"}]}}, 400, "document_invalid", None),
    ("POST", DOCUMENTS, {"json": {"documents": [{"text": "a", "metadata": {"a": {}}}]}}, 400, "document_invalid", None),
    ("POST", DOCUMENTS, documented({f"n{n}": n for n in range(17)}), 400, "document_invalid", "documents[0].metadata"),
    ("POST", DOCUMENTS, documented({"a": ["b"] * 1_001}), 400, "document_invalid", "documents[0].metadata"),
    ("POST", DOCUMENTS, {"json": {"collection": "A B", "documents": [{"text": "a"}]}}, 400, "document_invalid", None),
    ("POST", DOCUMENTS, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "invalid_request", None),
    ("POST", DOCUMENTS, {"data": {"collection": "x"}, "files": {"nonsense": b"x"}}, 400, "unknown_parameter", "nonsense"),
    ("POST", DOCUMENTS, {"data": {"groups": ""}, "files": {"files": ("a.txt", b"a")}}, 400, "document_invalid", None),
    ("POST", DOCUMENTS, {"data": {"groups": "hr,"}, "files": {"files": ("a.txt", b"a")}}, 400, "document_invalid", None),
    ("PUT", f"{DOCUMENTS}/a?groups=", {"content": b"x"}, 400, "document_invalid", "groups"),
    ("PUT", f"{DOCUMENTS}/a", {"json": {"text": "a", "metadata": {"a": {}}}}, 400, "document_invalid", "metadata.a"),
    ("POST", DOCUMENTS, {"json": {"documents": [{"text": "a", "id": ".."}]}}, 400, "document_invalid", "documents[0].id"),
    ("POST", DOCUMENTS, {"data": {"id": "."}, "files": {"files": ("a.txt", b"a")}}, 400, "document_invalid", None),
    ("PUT", f"{DOCUMENTS}/%2e%2e", {"content": b"x"}, 400, "document_invalid", "id"),
    ("POST", f"{DOCUMENTS}/delete", {"json": {}}, 400, "invalid_value", None),
    ("POST", f"{DOCUMENTS}/delete", {"json": []}, 400, "invalid_body", None),
    ("POST", "/v1/erase", {"json": {}}, 400, "invalid_value", None),
    ("POST", DOCUMENTS, {"files": {"files": ("a.txt", b"")}}, 400, "empty_document", None),
    ("POST", DOCUMENTS, {"files": {"files": ("a.pdf", b"MZ\x90\x00 not a pdf")}}, 415, "unsupported_type", None),
    ("POST", DOCUMENTS, {"files": {"files": ("a.exe", b"MZ\x90\x00" * 9)}}, 415, "unsupported_type", None),
    ("POST", DOCUMENTS, {"data": {"metadata": "{"}, "files": {"files": ("a.txt", b"a")}}, 400, "invalid_json", "metadata"),
    ("POST", DOCUMENTS, {"files": {"files": ("a.txt", b"a" * (2 * 2**20 + 1))}}, 413, "document_too_large", None),
    ("POST", DOCUMENTS, {"files": {"files": ("a.txt", b"a" * (4 * 2**20))}}, 413, "body_too_large", None),
    ("PUT", f"{DOCUMENTS}/a", {"content": b""}, 400, "empty_document", None),
    ("PUT", f"{DOCUMENTS}/a?colection=x", {"content": b"x"}, 400, "unknown_parameter", "colection"),
    ("PUT", f"{DOCUMENTS}/a b", {"content": b"x"}, 400, "document_invalid", None),
    ("GET", f"{DOCUMENTS}/nothing", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}/nothing/content", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}/a%00b", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}/a%00b/chunks/1-0", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}/a%00b/text?start=0&end=9", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}/%F0%9F%98%80,b/text?start=0&end=9", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}/nothing/chunks/1-1", {}, 404, "passage_not_found", None),
    ("GET", f"{DOCUMENTS}/nothing/chunks/x", {}, 404, "passage_not_found", None),
    ("DELETE", f"{DOCUMENTS}/nothing", {}, 404, "document_not_found", None),
    ("GET", f"{DOCUMENTS}?limit=0", {}, 400, "invalid_value", "limit"),
    ("GET", f"{DOCUMENTS}?collection=nowhere", {}, 404, "collection_not_found", None),
    ("GET", f"{DOCUMENTS}?after=%00", {}, 400, "invalid_value", "after"),
    ("GET", f"{DOCUMENTS}?after=a/b", {}, 400, "document_invalid", "after"),
    ("GET", f"{DOCUMENTS}?colection=x", {}, 400, "unknown_parameter", "colection"),
    ("DELETE", f"{DOCUMENTS}/a?dry_run=true", {}, 400, "unknown_parameter", "dry_run"),
    ("POST", f"{DOCUMENTS}?collection=x", {"json": {"documents": [{"text": "a"}]}}, 400, "unknown_parameter", "collection"),
    ("PUT", f"{DOCUMENTS}/a?groups=hr", {"json": {"text": "a"}}, 400, "invalid_value", "groups"),
    ("PUT", f"{DOCUMENTS}/a?groups=hr", {"files": {"files": ("a.txt", b"a")}}, 400, "invalid_value", "groups"),
    ("GET", "/v1/jobs/nothing", {}, 404, "job_not_found", None),
    ("GET", "/v1/jobs/nothing/events", {}, 404, "job_not_found", None),
    ("GET", "/v1/jobs?status=lost", {}, 400, "invalid_value", "status"),
    ("GET", "/v1/jobs?collection=nowhere", {}, 404, "collection_not_found", None),
    ("GET", "/v1/jobs/summary?collection=nowhere", {}, 404, "collection_not_found", None),
    ("POST", "/v1/jobs/retry", {"json": {"collection": "nowhere"}}, 404, "collection_not_found", "collection"),
    ("GET", "/v1/jobs?collection=%00", {}, 400, "invalid_value", "collection"),
    ("GET", "/v1/jobs/summary?collection=%00", {}, 400, "invalid_value", "collection"),
    ("GET", "/v1/jobs?since=0001-01-01T00:00%2B14:00", {}, 400, "invalid_value", "since"),
    ("GET", "/v1/jobs?since=9999-12-31T23:59-14:00", {}, 400, "invalid_value", "since"),
    ("POST", "/v1/jobs/cancel", {"json": {"since": "0001-01-01T00:00:00+14:00"}}, 400, "invalid_value", "since"),
    ("GET", "/v1/jobs?since=1700000000", {}, 400, "invalid_value", "since"),
    ("GET", f"/v1/erasures/{'0' * 36}", {}, 400, "invalid_value", "erasure_id"),
    ("POST", "/v1/queue/pause", {"json": {"everybody": 0}}, 400, "invalid_value", "everybody"),
    ("POST", "/v1/queue/resume", {"json": {"everybody": "no"}}, 400, "invalid_value", "everybody"),
    ("POST", CHAT, {"json": chat(stream="yes")}, 400, "invalid_value", "stream"),
    ("GET", "/v1/collections/%00/rules", {}, 404, "collection_not_found", None),
    ("GET", "/v1/collections/%00/report", {}, 404, "collection_not_found", None),
    ("POST", "/v1/jobs/nothing/cancel", {}, 404, "job_not_found", None),
    ("GET", "/v1/releases/nothing", {}, 404, "release_not_found", None),
    ("GET", "/v1/releases/%00%00%00%00", {}, 404, "release_not_found", None),
    ("POST", "/v1/releases/nothing/promote", {"json": {}}, 404, "release_not_found", None),
    ("POST", "/v1/releases/rollback", {"json": {}}, 409, "release_conflict", None),
    ("GET", "/v1/models/nothing", {}, 404, "model_not_found", "model"),
    ("GET", "/v1/nothing", {}, 404, "unknown_url", None),
    ("GET", "/web/../main.py", {}, 404, "unknown_url", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "told", "status", "code", "param"),
    CASES,
    ids=[f"{n}-{case[0]}-{case[4]}" for n, case in enumerate(CASES)],
)
async def test_bad_input_is_refused_by_name_and_the_service_goes_on(
    shared: Tenant, method: str, path: str, told: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    reply = await shared.http.request(method, path, **told)

    assert reply.headers["content-type"] == "application/json", reply.text
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    inside = re.search(r"0x[0-9a-f]{6}|function-|instance of|functools", str(error))
    assert not inside, error  # Names that the parser has for things.
    if param is not None:
        assert error["param"] == param
    assert reply.headers["x-request-id"]
    assert (await shared.http.get("/v1/models")).status_code == 200


HALF = r"\ud800 x"
"""Half of a surrogate pair, as JSON may spell it and as no text can hold it."""


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, '{"messages": [{"role": "user", "content": "%s"}]}'),
        (CHAT, '{"messages": [{"role": "user", "content": "%s"}], "stream": true}'),
        (CHAT, '{"messages": [{"role": "user", "content": "hello"}], "stop": ["%s"]}'),
        (SEARCH, '{"query": "%s"}'),
        (SEARCH, '{"query": "x", "filter": {"a": {"$in": ["%s"]}}}'),
        (SUMMARY, '{"text": "%s"}'),
        (EMBED, '{"input": ["%s"]}'),
        ("/v1/rerank", '{"query": "x", "documents": ["%s"]}'),
        (DOCUMENTS, '{"documents": [{"text": "a", "metadata": {"a": "%s"}}]}'),
        (f"{DOCUMENTS}/delete", '{"filter": {"a": "%s"}}'),
        ("/v1/queue/pause", '{"reason": "%s"}'),
    ],
)
async def test_half_a_surrogate_pair_is_refused_alike_everywhere(
    shared: Tenant, path: str, body: str
) -> None:
    reply = await shared.http.post(path, content=(body % HALF).encode(), headers=JSON)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "invalid_json"), error
    assert "half of a surrogate pair at line 1 column" in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        (f"{DOCUMENTS}/delete", {}, "Name `ids`, `filter` or `collection`."),
        (f"{DOCUMENTS}/delete", {"ids": []}, "`ids`: an empty list names none; leave it out instead."),
        (
            f"{DOCUMENTS}/delete",
            {"ids": ["x"], "collection": "default"},
            "Name `ids`, or else `filter`, `collection` or both.",
        ),
        ("/v1/erase", {}, "Name `ids`, `filter`, `collection`, or set `tenant`."),
        (
            SEARCH,
            {"query": "x", "collection": "a", "collections": ["b"]},
            "Name `collection` or `collections`, not both.",
        ),
        (SEARCH, {"query": "x", "a": 1, "b": 2}, "Unknown field `a`. (1 more problem.)"),
        (SEARCH, {"query": "x", "a": 1, "b": 2, "c": 3}, "Unknown field `a`. (2 more problems.)"),
        (
            SEARCH,
            {"query": "x", "collections": []},
            "`collections`: an empty list names none; leave it out instead.",
        ),
        (
            SEARCH,
            {"query": "x", "filter": {"a": "b\x00"}},
            "`filter.a`: a text must not hold the character U+0000.",
        ),
        (
            SEARCH,
            {"query": "x", "filter": {"a": {"$gt": 10**25}}},
            "`filter.a.$gt`: a number must be finite, and a whole one fit into 64 bits.",
        ),
        (
            SEARCH,
            {"query": "x", "filter": {"a": "b" * 1_001}},
            "`filter.a`: a text has at most 1000 characters, not 1001.",
        ),
        (EMBED, {"input": ""}, "`input[0]`: Text should have at least 1 character, not 0."),
        (
            EMBED,
            {"input": [[3, 5]]},
            "`input`: token ids are not taken, send texts; with LangChain: check_embedding_ctx_length=False.",
        ),
    ],
)
async def test_a_refusal_says_what_is_wrong(
    shared: Tenant, path: str, body: dict[str, Any], sentence: str
) -> None:
    reply = await shared.http.post(path, json=body)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, sentence)


async def test_405_names_every_method_that_the_address_takes(shared: Tenant) -> None:
    for path, methods in (
        (f"{DOCUMENTS}/a", "DELETE, GET, PUT"),
        (DOCUMENTS, "GET, POST"),
        (SEARCH, "POST"),
        ("/health/live", "GET, HEAD"),
    ):
        refused = await shared.http.patch(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, methods)


async def test_a_nul_at_any_place_of_any_address_is_the_callers_mistake(shared: Tenant) -> None:
    paths = (await shared.http.get("/openapi.json")).json()["paths"]
    asked = [
        (method, re.sub("{.*?}", "%00", path) + (f"?{one['name']}=%00" if one["in"] == "query" else ""))
        for path, operations in paths.items()
        for method, operation in operations.items()
        for one in operation.get("parameters", ())
        if one["in"] in ("path", "query")
    ]
    assert len(asked) > 40
    for method, address in asked:
        reply = await shared.http.request(method, address, json={} if method in ("post", "put") else None)
        assert reply.status_code in (400, 404), (method, address, reply.text)


async def test_an_address_for_other_services_clients_takes_what_they_add_to_it(shared: Tenant) -> None:
    for path in ("/v1/models?user=x", "/health/live?t=1"):
        assert (await shared.http.get(path)).status_code == 200
    assert (await shared.http.post(f"{EMBED}?api-version=1", json={"input": "x"})).status_code == 200


@pytest.fixture(scope="session")
async def shared(house: House) -> Tenant:
    return await house.tenant()


@pytest.mark.parametrize("authorization", ["Bearer pl-wrong", "Bearer", "Basic eDp5", "Bearer \xe9", None])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("POST", SEARCH),
        ("POST", SUMMARY),
        ("POST", EMBED),
        ("POST", DOCUMENTS),
        ("PUT", f"{DOCUMENTS}/a"),
        ("GET", DOCUMENTS),
        ("GET", f"{DOCUMENTS}/a"),
        ("GET", f"{DOCUMENTS}/a/content"),
        ("GET", f"{DOCUMENTS}/a/chunks/1-1"),
        ("DELETE", f"{DOCUMENTS}/a"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/a"),
        ("GET", "/v1/jobs/a/events"),
        ("POST", "/v1/jobs/a/cancel"),
        ("POST", "/v1/jobs/a/retry"),
        ("GET", "/v1/models"),
        ("GET", "/v1/releases"),
        ("GET", "/v1/releases/champion"),
        ("POST", "/v1/releases/rollback"),
    ],
)
async def test_nothing_is_told_without_a_right_key(
    house: House, shared: Tenant, method: str, path: str, authorization: str | None
) -> None:
    headers = {b"Content-Type": b"application/json"}
    if authorization is not None:
        headers[b"Authorization"] = authorization.encode("latin-1")
    body = b'{"model": "plumbline", "input": "x", "query": "x", "messages": [], "text": "x"}'
    async with httpx.AsyncClient(base_url=house.url) as client:
        reply = await client.request(method, path, content=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_body_that_lies_about_its_length_is_refused_while_it_is_read(shared: Tenant) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 200:
            sent += 1
            yield b"x" * 2**16

    try:
        reply = await shared.http.post(SEARCH, content=endless(), headers=JSON)
    except httpx.TransportError:
        return  # the connection was closed before all of it was sent
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


async def test_an_unexpected_defect_is_logged_and_told_without_detail(
    house: House, shared: Tenant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(house.services.search, "find", broken, raising=True)
    reply = await shared.http.post(SEARCH, json={"query": "x"})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (500, "internal_error")
    assert reply.headers["x-request-id"] in error["message"]
    assert "secret detail" not in reply.text
    assert "secret detail" in caplog.text
