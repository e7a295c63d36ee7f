"""Receipts of erasures: signed, checked anywhere, told by the command line."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ingestion.errors import DocumentInvalid
from ingestion.receipts import FORMAT, Receipts, reference
from tests.shell import run

BODY: dict[str, Any] = {
    "format": FORMAT,
    "id": "11111111-1111-1111-1111-111111111111",
    "tenant": "acme",
    "salt": "ab",
    "documents": [{"reference": reference("ab", "acme", "leave.md"), "version": 7, "revisions": [3, 4]}],
    "stores": {"files": {"state": "done", "removed": 1, "detail": "", "at": None}},
}


@pytest.fixture
def kept(tmp_path: Path) -> Receipts:
    return Receipts(str(tmp_path / "receipts"))


def signed(kept: Receipts, tmp_path: Path) -> Path:
    kept.sign(BODY["id"], BODY)
    return tmp_path / "receipts" / f"{BODY['id']}.json"


def test_a_receipt_is_read_as_it_was_signed(kept: Receipts, tmp_path: Path) -> None:
    path = signed(kept, tmp_path)
    read = kept.read(path)
    assert (read.body, read.signed, read.ours) == (BODY, True, True)
    assert kept.ids() == {BODY["id"]}
    assert "leave.md" not in path.read_text()


def test_only_we_may_read_the_key_and_the_receipts(kept: Receipts, tmp_path: Path) -> None:
    path = signed(kept, tmp_path)
    for one in (path, path.parent / "signing.key"):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [{"tenant": "other"}, {"documents": []}, {"more": 1}])
def test_a_receipt_that_was_changed_does_not_hold(
    kept: Receipts, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = signed(kept, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert not kept.read(path).signed


def test_another_instances_receipt_holds_and_is_said_not_to_be_ours(kept: Receipts, tmp_path: Path) -> None:
    path = signed(kept, tmp_path)
    other = Receipts(str(tmp_path / "other")).read(path)
    assert (other.signed, other.ours) == (True, False)


def test_a_draft_is_no_receipt_and_goes_when_it_is_signed(kept: Receipts) -> None:
    kept.draft(BODY["id"], {"salt": "ab"})
    assert (kept.ids(), kept.drafted(BODY["id"])) == (set(), {"salt": "ab"})
    kept.sign(BODY["id"], BODY)
    assert kept.drafted(BODY["id"]) == {}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"signature": 1}', '{"signature": {"value": "x"}}'])
def test_what_is_no_receipt_is_refused(kept: Receipts, tmp_path: Path, content: str) -> None:
    path = tmp_path / "no.json"
    path.write_text(content)
    with pytest.raises(DocumentInvalid, match="no receipt"):
        kept.read(path)


def test_the_command_line_decides_by_the_signature(kept: Receipts, tmp_path: Path) -> None:
    path = signed(kept, tmp_path)
    asked = ("erase", "verify", str(path.parent), "--data", str(tmp_path), "--json")
    told = run(*asked)
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout) == {"receipts": [{"id": BODY["id"], "signed": True, "ours": True}]}
    path.write_text(path.read_text().replace("acme", "umbrella"))
    assert run(*asked).exit_code == 1
    assert run("erase", "verify", "--data", str(tmp_path)).exit_code == 1


def test_hosts_that_sign_first_at_once_sign_with_one_key(tmp_path: Path) -> None:
    hosts = [Receipts(str(tmp_path / "receipts")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: hosts[at].sign(str(at), {**BODY, "id": str(at)}), range(8)))
    assert [one.ours for one in hosts[0].all()] == [True] * 8
