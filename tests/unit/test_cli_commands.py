"""Commands as a shell runs them, against a small real server or none."""

from __future__ import annotations

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
    job = {"id": "j1", "document_id": "a.md", "status": "queued"}
    error = {"code": "damaged", "message": "The file is damaged.", "part": "page 2"}
    server.reply("/v1/documents/a.md", {"jobs": [job]}, status=202)
    server.reply("/v1/documents/b.md", {"error": {"message": "It is empty.", "code": "empty"}}, status=400)
    server.reply(
        "/v1/jobs/j1", {**job, "status": "running"}, {**job, "status": "quarantined", "error": error}
    )
    taken = run("ingest", str(tmp_path), "--url", server.url, "--json")
    assert taken.exit_code == 1, taken.stderr
    outcomes = {each["document_id"]: each for each in json.loads(taken.stdout)["outcomes"]}
    assert (outcomes["a.md"]["status"], outcomes["a.md"]["part"]) == ("quarantined", "page 2")
    assert (outcomes["b.md"]["status"], outcomes["b.md"]["message"]) == ("refused", "It is empty.")


def test_metadata_and_groups_go_with_every_file(server: Server, tmp_path: Any) -> None:
    (tmp_path / "a.md").write_text("x")
    job = {"id": "j1", "document_id": "a.md", "status": "succeeded"}
    server.reply("/v1/documents/a.md", {"jobs": [job]}, status=202)
    arguments = ("--metadata", "year=2026", "--metadata", "kind=memo", "--group", "hr", "--no-wait")
    assert run("ingest", str(tmp_path), *arguments, "--url", server.url).exit_code == 0
    asked = server.sent[0][0]
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
