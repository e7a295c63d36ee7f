"""Commands as a shell runs them, against a small real server or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.cli.client import Client, ClientError
from app.embedded import free_port
from tests.shell import Server, run, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def stream(*events: Any, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def _job(document: str, status: str, **more: Any) -> dict[str, Any]:
    fields = {"id": f"job of {document}", "document_id": document, "version": 3, "status": status}
    return {**fields, "done": 0, "total": 0, "eta_seconds": None, "error": None, **more}


def _holds_nothing(server: Server) -> None:
    server.reply("/v1/documents", {"documents": [], "next": None})
    server.reply("/v1/documents/delete", {"ids": []})


def _put(server: Server) -> list[str]:
    return [line for line, _ in server.sent if line.startswith("PUT")]


CITATION = {"number": 2, "title": "Leave", "heading": "Days", "page": 3, "document_id": "leave.pdf"}
TOLD = {"citations": [CITATION], "degraded": ["rerank"]}


def test_help_names_every_command() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    for name in (
        "up",
        "ingest",
        "search",
        "ask",
        "summarize",
        "documents",
        "jobs",
        "release",
        "keys",
        "eval",
    ):
        assert name in shown.stdout


def test_a_service_that_does_not_run_is_said_in_one_sentence() -> None:
    asked = run("search", "anything", "--url", f"http://127.0.0.1:{free_port()}")
    assert asked.exit_code == 1
    assert "start it with `plumbline up`" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_an_unknown_option_is_a_usage_error() -> None:
    assert run("search", "x", "--nonsense").exit_code == 2


def test_the_sentence_of_the_service_is_what_a_failure_shows(server: Server) -> None:
    error = {"message": "There is no collection 'x' here.", "code": "collection_not_found"}
    server.reply("/v1/search", {"error": error}, status=404)
    asked = run("search", "anything", "--url", server.url)
    assert (asked.exit_code, asked.stderr.strip()) == (1, "There is no collection 'x' here.")


def test_another_kind_of_server_is_recognised(server: Server) -> None:
    server.reply("/v1/search", b"<html>", status=200)
    asked = run("search", "anything", "--url", server.url)
    assert asked.exit_code == 1
    assert "Is this address Plumbline's?" in asked.stderr


def test_a_full_house_is_asked_again(server: Server) -> None:
    server.reply(
        "/v1/search", {"error": {"message": "full", "code": "x"}}, status=429, headers={"Retry-After": "0"}
    )
    server.reply("/v1/search", {"hits": [], "degraded": []})
    found = run("search", "anything", "--url", server.url)
    assert (found.exit_code, found.stdout.strip()) == (0, "Nothing matches.")


def test_an_answer_comes_with_its_numbered_sources_and_what_it_did_without(server: Server) -> None:
    chunks = [
        {"choices": [{"delta": {"content": "28 days. [2]"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "plumbline": TOLD},
        {"choices": [], "usage": {}},
    ]
    server.reply("/v1/chat/completions", stream(*chunks))
    asked = run("ask", "How many?", "--collection", "hr", "--url", server.url)
    assert asked.exit_code == 0
    assert "28 days. [2]" in asked.stdout
    assert "[2] Leave · Days · page 3 · leave.pdf" in asked.stdout
    assert "answered without: rerank" in asked.stdout
    assert server.sent[0][1]["plumbline"]["collections"] == ["hr"]


def test_an_answer_that_breaks_off_fails(server: Server) -> None:
    server.reply("/v1/chat/completions", stream({"choices": [{"delta": {"content": "28"}}]}, done=False))
    asked = run("ask", "How many?", "--url", server.url)
    assert asked.exit_code == 1
    assert "broke off" in asked.stderr


@pytest.mark.parametrize(
    ("queue", "told"),
    [
        (
            {"queued": 2, "running": 1, "state": "open"},
            "3 documents are still being read. This does not know them",
        ),
        (
            {"queued": 1, "running": 0, "state": "paused"},
            "1 document waits: the queue is held back. This does not know it",
        ),
        ({"queued": 0, "running": 0, "state": "open"}, ""),
    ],
)
def test_who_asks_or_searches_while_documents_are_being_read_is_told_so(
    server: Server, queue: dict[str, Any], told: str
) -> None:
    server.reply("/v1/queue", queue)
    server.reply("/v1/search", {"hits": [], "degraded": []})
    final = {"choices": [], "plumbline": {"citations": [], "degraded": []}}
    server.reply("/v1/chat/completions", stream({"choices": [{"delta": {"content": "28 days."}}]}, final))
    for command, answer in (("search", "Nothing matches."), ("ask", "28 days.")):
        lines = run(command, "How many?", "--url", server.url).stdout.split("\n")
        assert [line for line in lines if line] == [answer, *([f"({told} yet.)"] if told else [])]


def test_an_answer_stands_where_nobody_can_tell_what_is_being_read(server: Server) -> None:
    server.reply("/v1/queue", {"error": {"message": "Not you.", "code": "forbidden"}}, status=403)
    server.reply("/v1/search", {"hits": [], "degraded": []})
    found = run("search", "anything", "--url", server.url)
    assert (found.exit_code, found.stdout.strip()) == (0, "Nothing matches.")


def test_an_error_in_the_middle_of_an_answer_fails_with_its_sentence(server: Server) -> None:
    error = {"error": {"message": "A source was changed.", "code": "source_changed"}}
    server.reply(
        "/v1/chat/completions", stream({"choices": [{"delta": {"content": "2"}}]}, error, done=False)
    )
    asked = run("ask", "How many?", "--url", server.url)
    assert (asked.exit_code, asked.stderr.strip()) == (1, "A source was changed.")


def test_a_piped_text_is_summarized(server: Server) -> None:
    summary = {"object": "summary", "text": "Short.", "coverage": 0.5, **TOLD}
    progress = {"object": "summary.progress", "done": 1, "total": 2}
    server.reply("/v1/summarize", stream(progress, {"object": "summary.delta", "delta": "Short."}, summary))
    made = run("summarize", "--url", server.url, stdin="A long text.")
    assert made.exit_code == 0, made.stderr
    assert server.sent[0][1]["text"] == "A long text."
    assert "Short." in made.stdout
    assert "speaks of 50%" in made.stdout


def test_a_failed_document_is_named_with_its_reason_and_fails_the_command(
    server: Server, tmp_path: Any
) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "b.md").write_text("")
    job = _job("a.md", "queued")
    _holds_nothing(server)
    error = {"code": "damaged", "message": "The file is damaged.", "part": "page 2"}
    server.reply("/v1/documents/a.md", {"jobs": [job]}, status=202)
    server.reply("/v1/documents/b.md", {"error": {"message": "It is empty.", "code": "empty"}}, status=400)
    quarantined = _job("a.md", "quarantined", error=error)
    server.reply("/v1/jobs/lookup", {"jobs": [_job("a.md", "running")]}, {"jobs": [quarantined]})
    taken = run("ingest", str(tmp_path), "--url", server.url, "--json")
    assert taken.exit_code == 1, taken.stderr
    outcomes = {each["document_id"]: each for each in json.loads(taken.stdout)["outcomes"]}
    assert (outcomes["a.md"]["status"], outcomes["a.md"]["part"]) == ("quarantined", "page 2")
    assert (outcomes["b.md"]["status"], outcomes["b.md"]["message"]) == ("refused", "It is empty.")
    assert json.loads(taken.stdout)["reasons"] == {"damaged": 1, "empty": 1}


def test_a_run_that_was_cut_short_goes_on_where_it_was(server: Server, tmp_path: Any) -> None:
    known = []
    for name in ("done.md", "queued.md", "broken.md", "changed.md"):
        (tmp_path / name).write_text(name)
        digest = hashlib.sha256(name.encode()).hexdigest()
        about: dict[str, Any] = {
            "filename": name,
            "metadata": {},
            "groups": [],
            "version": 3,
            "visible": name != "queued.md",
        }
        known.append({"id": name, "content_hash": digest, **about})
    known[-1]["content_hash"] = "other"
    server.reply("/v1/documents", {"documents": known, "next": None})
    listed = {"queued": _job("queued.md", "queued"), "quarantined": _job("broken.md", "quarantined")}
    for status in ("queued", "running", "failed", "quarantined"):
        server.reply("/v1/jobs", {"jobs": [listed[status]] if status in listed else []})
    for name in ("broken.md", "changed.md"):
        server.reply(f"/v1/documents/{name}", {"jobs": [_job(name, "queued")]}, status=202)
    taken = run("ingest", str(tmp_path), "--no-wait", "--url", server.url)
    assert taken.exit_code == 0, taken.stderr
    assert taken.stdout.strip() == "1 there already, 3 queued"
    assert len(_put(server)) == 2


def test_a_full_queue_is_waited_for_and_nothing_is_handed_in_twice(server: Server, tmp_path: Any) -> None:
    (tmp_path / "a.md").write_text("x")
    _holds_nothing(server)
    full = {"error": {"message": "Too many wait.", "code": "queue_full"}}
    server.reply("/v1/documents/a.md", full, status=429, headers={"Retry-After": "0"})
    server.reply("/v1/documents/a.md", {"jobs": [_job("a.md", "queued")]}, status=202)
    taken = run("ingest", str(tmp_path), "--no-wait", "--url", server.url)
    assert (taken.exit_code, taken.stdout.strip()) == (0, "1 queued")


def test_jobs_are_retried_by_reason_and_never_all_by_mistake(server: Server) -> None:
    server.reply("/v1/jobs/retry", {"retried": 3})
    done = run("jobs", "retry", "--reason", "needs_ocr", "--since", "2026-11-26", "--url", server.url)
    assert (done.exit_code, done.stdout.strip()) == (0, "3 jobs retried")
    sent = server.sent[-1][1]
    assert (sent["reason"], sent["since"][:10]) == ("needs_ocr", "2026-11-26")
    assert run("jobs", "retry", "--url", server.url).exit_code == 2
    assert run("jobs", "cancel", "j1", "--all", "--url", server.url).exit_code == 2


def test_a_drain_ends_when_nothing_runs_any_more(server: Server) -> None:
    now = {
        "state": "draining",
        "queued": 4,
        "queued_bytes": 10,
        "running": 1,
        "oldest_seconds": 3.0,
        "held_up": {"store_unavailable": 3, "embedder_unavailable": 1},
        "rate": None,
        "eta_seconds": None,
        "workers": 1,
        "pauses": [],
    }
    server.reply("/v1/queue/drain", now)
    server.reply("/v1/queue", now, {**now, "state": "drained", "running": 0})
    drained = run("queue", "drain", "--reason", "upgrade", "--json", "--url", server.url)
    assert drained.exit_code == 0
    assert json.loads(drained.stdout)["state"] == "drained"
    server.reply("/v1/queue/resume", {**now, "state": "open"})
    told = run("queue", "resume", "--url", server.url).stdout
    assert "not known" in told
    assert "1 by embedder_unavailable, 3 by store_unavailable" in told


def test_metadata_and_groups_go_with_every_file(server: Server, tmp_path: Any) -> None:
    (tmp_path / "a.md").write_text("x")
    _holds_nothing(server)
    server.reply("/v1/documents/a.md", {"jobs": [_job("a.md", "succeeded")]}, status=202)
    arguments = ("--metadata", "year=2026", "--metadata", "kind=memo", "--group", "hr", "--no-wait")
    assert run("ingest", str(tmp_path), *arguments, "--url", server.url).exit_code == 0
    asked = _put(server)[0]
    assert "groups=hr" in asked
    assert "%22year%22%3A%202026" in asked.replace("+", "%20")


def test_a_key_is_sent_and_never_shown() -> None:
    client = Client("http://127.0.0.1:9", "pl-secret")
    assert "pl-secret" not in repr(client)
    with pytest.raises(ClientError) as caught:
        client.get("/v1/models")
    assert "pl-secret" not in str(caught.value)
    client.close()


def test_a_release_file_is_checked_without_a_service(tmp_path: Any) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "x"\nmodels = [{ name = "extractive" }]\n[search]\nlimitt = 3\n')
    checked = run("release", "validate", str(bad))
    assert checked.exit_code == 1
    assert "limitt" in checked.stderr


@pytest.mark.parametrize(
    ("visible", "status", "code", "said"),
    [
        (True, "succeeded", None, "searchable"),
        (False, "queued", "store_unavailable", "queued"),
        (False, "quarantined", "needs_ocr", "quarantined (needs_ocr)"),
        (True, "quarantined", "needs_ocr", "searchable, newer version quarantined (needs_ocr)"),
    ],
)
def test_a_list_of_documents_says_what_became_of_each(
    server: Server, visible: bool, status: str, code: str | None, said: str
) -> None:
    error = code and {"code": code, "message": "Told.", "part": None}
    one = {"id": "a", "collection": "c", "title": "A", "chunks": 1, "visible": visible, "status": status}
    server.reply("/v1/documents", {"documents": [{**one, "error": error}], "next": None})
    shown = run("documents", "list", "--url", server.url)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines()[-1].endswith(said)
