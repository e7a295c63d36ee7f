"""`plumbline collections`, against a small real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shell import Server, run, serving

RULES = {"languages": ["english", "german"], "min_characters": 20, "refuse": ["min_characters"]}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def test_rules_are_set_from_a_file_and_shown_with_what_breaking_them_does(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(RULES))
    server.reply("/v1/collections/policies/rules", {"collection": "policies", "rules": RULES})
    done = run("collections", "rules", "policies", "--set", str(file), "--url", server.url)
    assert done.exit_code == 0, done.stderr
    [(call, body)] = server.sent
    assert (call, json.loads(body)) == ("PUT /v1/collections/policies/rules", RULES)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["languages", "english,", "german", "warn"] in lines
    assert ["min_characters", "20", "refuse"] in lines


@pytest.mark.parametrize("content", ["not JSON", "[1]"])
def test_a_file_that_holds_no_rules_is_refused_before_anything_is_sent(
    server: Server, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "rules.json"
    file.write_text(content)
    done = run("collections", "rules", "policies", "--set", str(file), "--url", server.url)
    assert (done.exit_code, server.sent) == (2, [])
    assert str(file) in done.stderr


def test_a_report_names_the_documents_that_broke_each_rule(server: Server) -> None:
    broken = {"min_characters": {"documents": 2, "examples": ["a", "b"]}}
    told = {"documents": 3, "with_warnings": 0, "refused": broken, "warned": {}}
    server.reply("/v1/collections/policies/report", told)
    shown = run("collections", "report", "policies", "--url", server.url)
    assert ["min_characters", "refused", "2", "a", "b"] in [
        line.split() for line in shown.stdout.splitlines()
    ]
    as_json = run("collections", "report", "policies", "--json", "--url", server.url)
    assert json.loads(as_json.stdout) == told
