"""What `plumbline ingest` does with files and words that it cannot hand in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.cli.describing import PRIORITIES
from app.cli.sources import document_id
from app.routes import uploads
from tests.shell import Server, run, serving

LIMIT = 1_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A service that holds nothing and takes everything."""
    monkeypatch.setenv("PLUMBLINE_UPLOAD_LIMIT", str(LIMIT))
    with serving() as made:
        made.reply("/v1/documents", {"documents": [], "next": None})
        made.reply("/v1/documents/delete", {"ids": []})
        yield made


def _takes(server: Server, *names: str) -> None:
    for name in names:
        server.reply(
            f"/v1/documents/{name}", {"jobs": [{"id": f"job-{name}", "status": "queued"}]}, status=202
        )


def _handed_in(server: Server) -> list[str]:
    """The addresses of what was put, with their queries."""
    return [line.partition(" ")[2] for line, _ in server.sent if line.startswith("PUT ")]


def _ingest(server: Server, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = run("ingest", *arguments, "--no-wait", "--json", "--url", server.url)
    return done.exit_code, json.loads(done.stdout)


def test_a_name_that_is_not_utf_8_is_handed_in_under_a_readable_one(server: Server, tmp_path: Path) -> None:
    for name in (b"bad\xff.txt", b"good.txt"):
        (tmp_path / os.fsdecode(name)).write_text("x")
    _takes(server, document_id("bad\udcff.txt"), "good.txt")
    code, told = _ingest(server, str(tmp_path))
    assert (code, told["failed"]) == (0, 0)
    names = [parse_qs(urlsplit(address).query)["filename"] for address in _handed_in(server)]
    assert sorted(names) == [["bad\ufffd.txt"], ["good.txt"]]


@pytest.mark.parametrize("irregular", ["/dev/zero", "pipe.md"])
def test_what_is_no_file_is_refused_alone_and_never_read(
    server: Server, tmp_path: Path, irregular: str
) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "a.md").write_text("x")
    _takes(server, "a.md")
    code, told = _ingest(server, str(tmp_path / irregular), str(tmp_path / "a.md"))
    outcomes = {one["status"]: one["message"] for one in told["outcomes"]}
    assert code == 1
    assert outcomes == {"refused": "It is not a regular file.", "queued": ""}


def test_what_is_left_out_of_a_folder_is_said(server: Server, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    for name in ("a.md", "b.png", "c.PNG", "d"):
        (tmp_path / name).write_text("x")
    _takes(server, "a.md")
    done = run("ingest", str(tmp_path), "--no-wait", "--url", server.url)
    assert done.exit_code == 0
    assert " ".join(done.stdout.split()) == (
        "1 queued, 3 of other types left out (.png, no ending), "
        f"1 passed over that are no files ({tmp_path / 'pipe.md'})"
    )


def test_a_file_above_the_limit_is_refused_before_it_is_read(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.md"
    large.touch()
    os.truncate(large, 2**40)
    code, told = _ingest(server, str(large))
    [refused] = told["outcomes"]
    assert (code, refused["reason"]) == (1, "document_too_large")
    assert "1,099,511,627,776 bytes; at most 1,000" in refused["message"]
    assert _handed_in(server) == []


@pytest.mark.parametrize("group", ["", " ", "hr,", ","])
def test_an_empty_group_is_refused_since_it_would_publish_the_document(
    server: Server, tmp_path: Path, group: str
) -> None:
    (tmp_path / "a.md").write_text("x")
    done = run("ingest", str(tmp_path), "--group", group, "--url", server.url)
    assert done.exit_code == 2
    assert "names no group" in done.stderr
    assert server.sent == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--priority", "urgent", "low, normal, high, or a number from -10 to 10"),
        ("--priority", "11", "low, normal, high, or a number from -10 to 10"),
        ("--collection", "Bad Name", "--collection: 'Bad Name' is no collection name"),
        ("--metadata", "1st=x", "--metadata: '1st' is no metadata key"),
        ("--metadata", "x=NaN", "--metadata x: The number is not finite."),
        ("--metadata", "x=\udcff", "--metadata x: The value holds half of a surrogate pair."),
        ("--group", "a b", "--group: 'a b' is no group name"),
    ],
)
def test_what_no_document_may_have_is_refused_before_any_is_sent(
    server: Server, tmp_path: Path, option: str, value: str, said: str
) -> None:
    (tmp_path / "a.md").write_text("x")
    done = run("ingest", str(tmp_path), option, value, "--url", server.url)
    assert done.exit_code == 2
    assert said in done.stderr
    assert server.sent == []


def test_the_priorities_are_those_of_the_service() -> None:
    assert set(PRIORITIES) == set(uploads.PRIORITIES)


def test_groups_may_be_separated_by_commas(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    _takes(server, "a.md")
    assert _ingest(server, str(tmp_path), "--group", "hr, it", "--priority", "-3")[0] == 0
    query = parse_qs(urlsplit(_handed_in(server)[0]).query)
    assert (query["groups"], query["priority"]) == (["hr", "it"], ["-3"])


def test_documents_that_are_taken_from_another_collection_are_counted(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / name).write_text("x")
    with serving() as server:
        known = {"id": "a.md", "content_hash": "other", "version": 1, "visible": True}
        about = {"filename": "a.md", "metadata": {}, "groups": []}
        server.reply("/v1/documents", {"documents": [{**known, **about}], "next": None})
        server.reply("/v1/jobs", {"jobs": []})
        server.reply("/v1/documents/delete", {"ids": ["b.md"]})
        _takes(server, "a.md", "b.md", "c.md")
        done = run("ingest", str(tmp_path), "--collection", "b", "--no-wait", "--url", server.url)
        asked = next(body for line, body in server.sent if line == "POST /v1/documents/delete")
    assert done.stdout.strip() == "3 queued, 1 moved here from other collections"
    assert asked == {"ids": ["b.md", "c.md"], "dry_run": True}
