"""What is given wrongly, and what cannot be shown, is told in a sentence that is true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.printable import readable
from app.release import DEFAULT_RELEASE
from eval.report import dump, verdict_json
from tests import reports
from tests.shell import Server, run, serving

HIT = {"score": 0.5, "title": "Leave", "document_id": "leave.md", "page": None, "text": "28 days."}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def _shell(*arguments: str | bytes, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """As a process of its own."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, timeout=60, **more)


@pytest.mark.parametrize(
    "arguments",
    [("search", "\udcff\udcfe"), ("ask", "\udcff"), ("documents", "list", "--collection", "\udcff")],
)
def test_words_that_are_not_utf_8_are_told_as_such(server: Server, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, "--url", server.url)
    assert done.exit_code == 2
    assert "\\udcff" in done.stderr
    assert "is no text in UTF-8" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("release", "add", str(DEFAULT_RELEASE)),
        ("release", "judge", "verdict.json"),
        ("release", "list"),
        ("keys", "create", "first"),
        ("erase", "reapply"),
        ("ingest", "."),
        ("jobs",),
    ],
)
def test_a_folder_without_an_instance_is_told_as_such_and_none_is_made(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "verdict.json").write_text(dump(verdict_json(reports.verdict())))
    done = run(*arguments, "--data", str(tmp_path / "plumblien"))
    assert done.exit_code in (1, 3)
    assert re.match(r"(There is no|No) instance (in|runs on) .*/plumblien:", done.stderr)
    assert not (tmp_path / "plumblien").exists()


@pytest.mark.parametrize("piped", [b"\xff\xfe\x00", "Übung".encode("latin-1")])
def test_a_piped_text_that_is_not_utf_8_is_told_as_such(server: Server, piped: bytes) -> None:
    done = run("summarize", "--url", server.url, stdin=piped)
    assert done.exit_code == 2
    assert "What was piped in is not text in UTF-8." in done.stderr


def test_a_piped_text_without_an_end_is_not_held(server: Server) -> None:
    with Path("/dev/zero").open("rb") as endless:
        done = _shell("summarize", "--url", server.url, stdin=endless)
    assert done.returncode == 2
    assert b"more than the 2,000,000 characters" in done.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/nonexistent.txt", "There is no file /nonexistent.txt, and it is no document's id."),
        ("/", "/ is a folder."),
        ("..", ".. is a folder."),
        ("/dev/null", "/dev/null is not a regular file."),
        ("x" * 300, "and it is no document's id."),
    ],
)
def test_what_can_be_neither_summarized_as_a_file_nor_as_a_document(target: str, said: str) -> None:
    done = run("summarize", target)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_document_that_is_not_there_may_have_been_meant_as_a_file(server: Server) -> None:
    error = {"message": "There is no document 'nope.txt' here.", "code": "document_not_found"}
    server.reply("/v1/summarize", {"error": error}, status=404)
    for form in ((), ("--json",)):
        done = run("summarize", "nope.txt", *form, "--url", server.url)
        assert (done.exit_code, done.stderr.strip()) == (
            1,
            f"{error['message']} There is no such file here either.",
        )


def test_documents_and_files_are_not_summarized_together(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("x")
    done = run("summarize", "policies:paid-leave.md", str(file))
    assert done.exit_code == 2
    assert f"{file} is a file and policies:paid-leave.md is none." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("documents", "show", "a/b"), "'a/b' is no document's id"),
        (("documents", "show", "a.txt/content"), "'a.txt/content' is no document's id"),
        (("documents", "delete", "a", "../b"), "'../b' is no document's id"),
        (("documents", "delete", ".."), "'..' is no document's id"),
        (("jobs", "show", "a/b"), "'a/b' is no job's id"),
        (("jobs", "retry", "a", "a/b"), "'a/b' is no job's id"),
        (("jobs", "watch", "a/b"), "'a/b' is no job's id"),
        (("erase", "show", "nope"), "'nope' is no erasure's id"),
        (("erase", "--id", "a/b", "--yes"), "'a/b' is no document's id"),
        (("collections", "report", "a/b"), "'a/b' is no collection's name"),
        (("release", "show", "a/b"), "'a/b' is no release's id or name"),
        (("release", "diff", "/nope", "b"), "There is no file /nope, and it is no release's id or name."),
        (("documents", "delete"), "Name documents by their ids"),
        (("documents", "delete", "a", "--collection", "b"), "Name documents by their ids"),
        (("erase", "--yes"), "Name --id, --where, --collection or --tenant."),
    ],
)
def test_what_can_be_no_id_is_refused_before_anything_is_asked(
    server: Server, arguments: tuple[str, ...], said: str
) -> None:
    done = run(*arguments, "--url", server.url)
    assert done.exit_code == 2
    assert said in done.stderr
    assert server.sent == []


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "localhost:8080", "http://x:port"])
def test_what_can_be_no_address_is_told_as_such(url: str) -> None:
    done = run("search", "x", "--url", url)
    assert done.exit_code == 2
    assert f"{url} is no address" in done.stderr


@pytest.mark.parametrize("key", ["bäd", "pl-x\n", "pl x", "\udcff"])
def test_what_can_be_no_key_is_told_as_such_and_not_shown(server: Server, key: str) -> None:
    done = run("search", "x", "--url", server.url, "--key", key)
    assert done.exit_code == 2
    assert done.stderr.startswith("The key (--key, PLUMBLINE_KEY) holds what no key does")
    assert key not in done.stderr


@pytest.mark.parametrize("where", ["x=NaN", "x=-Infinity", "x=1e999"])
def test_what_json_has_no_number_for_is_a_text(server: Server, where: str) -> None:
    server.reply("/v1/search", {"hits": [], "degraded": []})
    assert run("search", "x", "--where", where, "--url", server.url).exit_code == 0
    assert server.sent[0][1]["filter"] == {"x": where.removeprefix("x=")}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_output_that_takes_no_more_is_told_in_a_sentence(server: Server, form: tuple[str, ...]) -> None:
    server.reply("/v1/search", {"hits": [HIT], "degraded": []})
    with Path("/dev/full").open("wb") as full:
        done = _shell("search", "x", *form, "--url", server.url, stdout=full)
    assert (done.returncode, done.stderr) == (1, b"Nothing more can be written: No space left on device.\n")


def test_a_reader_who_went_away_is_no_reason_to_complain(server: Server) -> None:
    server.reply("/v1/search", {"hits": [HIT], "degraded": []})
    read, write = os.pipe()
    os.close(read)
    done = _shell("search", "x", "--url", server.url, stdout=write)
    os.close(write)
    assert done.stderr == b""


def test_an_output_that_was_closed_is_no_reason_to_complain(server: Server) -> None:
    server.reply("/v1/search", {"hits": [HIT], "degraded": []})
    closed = ["sh", "-c", f"{sys.executable} -m app.cli search x --url {server.url} >&-"]
    done = subprocess.run(closed, check=False, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_lacks_a_character_is_shown_its_code(server: Server) -> None:
    server.reply("/v1/search", {"hits": [{**HIT, "title": "Прогулка"}], "degraded": []})
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = _shell("search", "x", "--url", server.url, stdout=subprocess.PIPE, env=latin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u041f\\u0440" in done.stdout


def test_an_erasure_of_what_nobody_knows_fails_with_the_sentence_of_the_service(server: Server) -> None:
    error = {"message": "There is no document 'nope' here.", "code": "document_not_found"}
    server.reply("/v1/erase", {"error": error}, status=404)
    done = run("erase", "--id", "nope", "--yes", "--url", server.url)
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (1, "", error["message"])


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [("", 2, "Say --yes where nobody can be asked."), ("n\n", 1, "Nothing was erased.")],
)
def test_an_erasure_that_nobody_confirms_does_not_begin(
    server: Server, answer: str, code: int, said: str
) -> None:
    server.reply("/v1/documents/delete", {"ids": ["a"], "count": 1})
    done = run("erase", "--id", "a", "--json", "--url", server.url, stdin=answer)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "Erase 1 documents from every store, for good? [y/N]" in done.stderr
    assert said in done.stderr
    assert [line for line, _ in server.sent] == ["POST /v1/documents/delete"]


def test_an_erasure_that_is_confirmed_begins(server: Server) -> None:
    server.reply("/v1/documents/delete", {"ids": ["a"], "count": 1})
    erasure = {"id": "e", "documents": 1, "state": "finished", "stores": {}}
    server.reply("/v1/erase", erasure)
    done = run("erase", "--id", "a", "--json", "--url", server.url, stdin="Y\n")
    assert (done.exit_code, json.loads(done.stdout)) == (0, erasure)


DESTRUCTIVE = [
    (("documents", "delete", "a.md"), "Delete a.md?", "Nothing was deleted."),
    (("documents", "delete", "a.md", "b.md"), "Delete 2 documents?", "Nothing was deleted."),
    (("documents", "delete", "--collection", "hr"), "Delete 7 documents?", "Nothing was deleted."),
    (("release", "drop-index", "abc123"), "the index of abc123?", "Nothing was given up."),
]


@pytest.mark.parametrize(("command", "question", "otherwise"), DESTRUCTIVE)
@pytest.mark.parametrize(("answer", "code"), [("", 2), ("n\n", 1), ("y\n", 0), (None, 0)])
def test_what_cannot_be_taken_back_is_asked_about(
    server: Server, command: tuple[str, ...], question: str, otherwise: str, answer: str | None, code: int
) -> None:
    """`None` stands for --yes."""
    for name in ("a.md", "b.md"):
        server.reply(f"/v1/documents/{name}", {"deleted": True})
    server.reply("/v1/documents/delete", {"ids": ["x"], "count": 7})
    server.reply("/v1/releases/abc123/index", {"release": "abc123", "state": "retired"})
    options = () if answer is not None else ("--yes",)
    done = run(*command, *options, "--url", server.url, stdin=answer or "")
    assert done.exit_code == code, done.stderr
    assert (f"{question} [y/N]" in done.stderr) is (answer is not None)
    if answer == "n\n":
        assert otherwise in done.stderr
    elif answer == "":
        assert "Say --yes" in done.stderr
    sent = [(line, body) for line, body in server.sent if not (isinstance(body, dict) and body["dry_run"])]
    assert bool(sent) is (code == 0)


def test_a_key_is_not_revoked_where_nobody_says_yes(tmp_path: Path) -> None:
    done = run("keys", "revoke", "alice", "--data", str(tmp_path), stdin="n\n")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Revoke the key alice, for good? [y/N]" in done.stderr
    assert "Nothing was revoked." in done.stderr


def test_a_hit_is_shown_with_the_id_that_other_commands_take(server: Server) -> None:
    server.reply("/v1/search", {"hits": [HIT], "degraded": []})
    [head, row] = run("search", "x", "--url", server.url).stdout.splitlines()
    assert head.split() == ["score", "document", "title", "page", "passage"]
    assert row.split() == ["0.500", "leave.md", "Leave", "28", "days."]


@pytest.mark.parametrize("command", [("release", "list"), ("release", "rollback"), ("documents", "list")])
def test_a_data_folder_where_nothing_runs_is_not_taken_for_another_instance(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PLUMBLINE_PORT", server.url.rpartition(":")[2])
    refused = run(*command, "--data", str(tmp_path))
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"No instance runs on {tmp_path}: ")
    assert server.sent == []


@pytest.mark.parametrize("command", ["eval", "bench", "controller"])
def test_commands_of_other_folders_say_what_they_do_and_take_h(command: str) -> None:
    line = next(one for one in run("--help").stdout.splitlines() if one.split()[1:2] == [command])
    assert "See" not in line
    shown = run(command, "-h")
    assert "--install-completion" not in shown.stdout
    assert shown.exit_code == 0
    assert f"Usage: plumbline {command}" in shown.stdout
    deeper = run("eval", "gate", "-h")
    assert (deeper.exit_code, "Compare two reports" in deeper.stdout) == (0, True)


BAD = "\x1b[31mE\u202e\x9bX\r\nY"
SHOWN = "\\u001b[31mE\\u202e\\u009bX"


def test_a_title_cannot_steer_the_terminal(server: Server) -> None:
    citation = {"number": 1, "title": BAD, "heading": "", "page": None, "document_id": "a"}
    server.reply("/v1/search", {"hits": [{**HIT, "title": BAD}], "degraded": []})
    document = {"id": "a", "collection": "c", "title": BAD, "chunks": 1, "visible": True, "status": None}
    server.reply("/v1/documents", {"documents": [{**document, "error": None}], "next": None})
    server.reply("/v1/documents/a", document)
    events = [
        {"choices": [{"delta": {"content": BAD}}]},
        {"choices": [], "plumbline": {"citations": [citation], "degraded": []}},
    ]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    server.reply("/v1/chat/completions", "".join([*lines, "data: [DONE]\n\n"]).encode())
    for arguments in (("search", "x"), ("documents", "list"), ("documents", "show", "a"), ("ask", "x")):
        shown = run(*arguments, "--url", server.url)
        assert shown.exit_code == 0, shown.stderr
        assert SHOWN in shown.stdout
        assert not {"\x1b", "\u202e", "\x9b"} & set(shown.stdout)
    raw = run("documents", "show", "a", "--json", "--url", server.url).stdout
    assert "\x9b" not in raw
    assert json.loads(raw)["title"] == BAD


def test_a_row_of_a_pipe_is_a_line(server: Server) -> None:
    server.reply("/v1/search", {"hits": [{**HIT, "title": "One\r\n  two"}], "degraded": []})
    assert "One two" in run("search", "x", "--url", server.url).stdout.splitlines()[1]


def test_text_of_any_script_stays_as_it_is() -> None:
    for text in ("می‌خواهم", "👩‍🔬", "a\tb\nc\r\n", "Übung", "שלום\u200f!"):
        assert readable(text) == text
