"""`plumbline release` as a shell runs it, against a small real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.watching import nearness
from app.release import DEFAULT_RELEASE, load_release
from tests.shell import Server, run, serving

METRIC = {
    "metric": "faults",
    "e_value": 3.0,
    "highest": 4.0,
    "threshold": 100.0,
    "units": 40,
    "harmed": 3,
    "rate_candidate": 0.1,
    "rate_control": 0.05,
}
EVIDENCE = {
    "metrics": [METRIC],
    "units": {"candidate": 20, "control": 20},
    "steps": [{"share": 0.01, "units": 200}, {"share": 0.05, "units": 1000}],
    "waiting_for": "Waits for 180 more conversations.",
}
TRIAL: dict[str, Any] = {
    "id": "t1",
    "kind": "canary",
    "release": "abc123",
    "control": "def456",
    "state": "running",
    "plan": {},
    "step": 0,
    "share": 0.01,
    "live": True,
    "evidence": EVIDENCE,
    "decision": None,
    "started_at": "2026-01-01T10:00:00+00:00",
    "ended_at": None,
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def _trials(*states: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": "abc123", "trials": [{**TRIAL, **state}], "audit": []} for state in states]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.watching.INTERVAL", 0.01)


def test_a_canary_is_started_with_its_steps(server: Server) -> None:
    server.reply("/v1/releases/abc123/canary", TRIAL, status=201)
    arguments = ("--steps", "0.01:200,0.05:1000", "--no-promote", "--force", "--reason", "urgent")
    started = run("release", "canary", "abc123", *arguments, "--url", server.url)
    assert started.exit_code == 0, started.stderr
    assert server.sent[0][1] == {
        "force": True,
        "reason": "urgent",
        "promote": False,
        "steps": [{"share": 0.01, "units": 200}, {"share": 0.05, "units": 1000}],
    }
    assert "plumbline release watch abc123" in started.stdout


@pytest.mark.parametrize("steps", ["0.01", "x:200", "0.01:200,", "0.01:2.5"])
def test_steps_that_cannot_be_read_are_a_usage_error(server: Server, steps: str) -> None:
    refused = run("release", "canary", "abc123", "--steps", steps, "--url", server.url)
    assert refused.exit_code == 2
    assert "0.01:200" in refused.stderr
    assert server.sent == []


def test_a_shadow_is_started_with_its_share_and_its_pairs(server: Server) -> None:
    server.reply("/v1/releases/b2/shadow", {**TRIAL, "kind": "shadow"}, status=201)
    started = run("release", "shadow", "b2", "--share", "0.5", "--pairs", "300", "--url", server.url)
    assert started.exit_code == 0, started.stderr
    assert server.sent[0][1] == {"force": False, "reason": "", "share": 0.5, "pairs": 300}


def test_a_trial_is_stopped_with_a_reason(server: Server) -> None:
    server.reply("/v1/releases/abc123/stop", {"id": "abc123", "state": "evaluated"})
    stopped = run("release", "stop", "abc123", "--reason", "lunch", "--url", server.url)
    assert stopped.exit_code == 0
    assert server.sent[0][1] == {"reason": "lunch"}


@pytest.mark.parametrize(
    ("state", "code"),
    [("promoted", 0), ("passed", 0), ("rolled_back", 1), ("failed", 1), ("stopped", 3)],
)
@pytest.mark.usefixtures("quick")
def test_watching_ends_with_the_trial_and_its_exit_code_says_how(
    server: Server, state: str, code: int
) -> None:
    ended = {"state": state, "live": False, "share": 0.0, "decision": {"why": "Too many faults."}}
    server.reply("/v1/releases/abc123/trials", *_trials({}, {}, ended))
    watched = run("release", "watch", "abc123", "--url", server.url)
    assert watched.exit_code == code
    assert "canary of abc123 against def456: running, step 1 of 2, 1.00%" in watched.stdout
    assert watched.stdout.count("running") == 1
    assert "Too many faults." in watched.stdout


@pytest.mark.usefixtures("quick")
def test_watching_into_a_log_tells_how_far_it_is_though_no_step_changes(
    server: Server, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.watching.REPORT", 0.0)
    decision = {"why": "No harm.", "evidence": EVIDENCE}
    ended = {"state": "promoted", "live": False, "share": 0.0, "decision": decision}
    server.reply("/v1/releases/abc123/trials", *_trials({}, {}, {"live": False, "share": 0.0}, ended))
    lines = run("release", "watch", "abc123", "--url", server.url).stdout.splitlines()
    assert lines[1] == (
        "20 conversations of the candidate, 20 conversations of the champion. "
        "Waits for 180 more conversations."
    )
    assert lines[2].endswith("no requests: no controller watches it now")
    assert lines[-1] == "promoted: No harm."


def test_watching_in_json_prints_a_line_for_every_change(server: Server) -> None:
    states: list[dict[str, Any]] = [{}, {}, {"step": 1, "share": 0.05}, {"step": 1, "state": "promoted"}]
    server.reply("/v1/releases/abc123/trials", *_trials(*states))
    watched = run("release", "watch", "abc123", "--json", "--url", server.url)
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    assert [(line["state"], line["step"]) for line in lines] == [
        ("running", 0),
        ("running", 1),
        ("promoted", 1),
    ]
    assert lines[0]["evidence"] == EVIDENCE


def test_a_release_that_was_never_on_trial_cannot_be_watched(server: Server) -> None:
    server.reply("/v1/releases/abc123/trials", {"id": "abc123", "trials": [], "audit": []})
    watched = run("release", "watch", "abc123", "--url", server.url)
    assert (watched.exit_code, watched.stderr.strip()) == (1, "Release abc123 has never been on trial.")


def test_the_table_shows_rates_evidence_and_what_is_waited_for() -> None:
    from rich.console import Console

    from app.cli.watching import shown

    console = Console(width=120)
    with console.capture() as captured:
        console.print(shown(TRIAL))
    text = captured.get()
    for words in ("faults", "10.00%", "5.00%", "100", "20 conversations of the champion", "180 more"):
        assert words in text


def test_evidence_is_near_harm_by_its_logarithm() -> None:
    assert nearness(1.0, 100.0) == 0.0
    assert nearness(10.0, 100.0) == pytest.approx(0.5)
    assert nearness(0.2, 100.0) == 0.0
    assert nearness(1e9, 100.0) == 1.0


def test_the_history_says_when_who_what_and_why(server: Server) -> None:
    forced = {"force": True, "reason": "urgent"}
    ended = {"trial": "t1", "decision": {"why": "Too many faults."}}
    audit = [
        {
            "at": "2026-01-01T10:00:00.123+00:00",
            "who": "key k1",
            "what": "release.canary",
            "evidence": forced,
        },
        {
            "at": "2026-01-01T11:00:00+00:00",
            "who": "controller",
            "what": "release.rollback",
            "evidence": ended,
        },
    ]
    server.reply("/v1/releases/abc123/trials", {"id": "abc123", "trials": [], "audit": audit})
    told = run("release", "history", "abc123", "--url", server.url)
    assert told.exit_code == 0
    first, second = told.stdout.splitlines()[1:]
    assert all(word in first for word in ("2026-01-01T10:00:00", "key k1", "urgent", "by force"))
    assert "Too many faults." in second


def test_the_list_shows_state_share_and_why_it_was_forced(server: Server) -> None:
    release = {"bootstrap": False, "evaluated": True, "evidence": {}, "forced": None}
    releases = [
        {**release, "id": "abc123", "name": "new", "state": "canary"},
        {**release, "id": "def456", "name": "old", "state": "champion", "evaluated": False, "forced": "fire"},
        {**release, "id": "fff999", "name": "first", "state": "retired", "bootstrap": True},
    ]
    server.reply("/v1/releases", {"releases": releases})
    share = {
        "trial": TRIAL["id"],
        "release": TRIAL["release"],
        "share": TRIAL["share"],
        "live": TRIAL["live"],
    }
    server.reply("/v1/releases/standing", {"canary": share, "shadow": None, "trials": None})
    listed = run("release", "list", "--url", server.url)
    assert listed.exit_code == 0, listed.stderr
    new, old, _ = listed.stdout.splitlines()[1:]
    assert "canary" in new
    assert "1.00%" in new
    assert "fire" in old
    shares = json.loads(run("release", "list", "--json", "--url", server.url).stdout)["releases"]
    assert [one["share"] for one in shares] == [0.01, None, None]


def test_two_files_are_compared_key_by_key_without_a_service(tmp_path: Path) -> None:
    text = DEFAULT_RELEASE.read_text()
    other = tmp_path / "other.toml"
    other.write_text(text.replace('name = "default"', 'name = "other"'))
    shown = run("release", "diff", str(DEFAULT_RELEASE), str(other))
    assert (shown.exit_code, shown.stdout.strip()) == (0, "name: default -> other")
    same = run("release", "diff", str(DEFAULT_RELEASE), str(DEFAULT_RELEASE))
    assert "Nothing" in same.stdout


def test_a_file_is_compared_with_a_registered_release_and_its_prompt_line_by_line(server: Server) -> None:
    release = json.loads(load_release(DEFAULT_RELEASE).canonical())
    release["prompts"]["answer"] += "\nAnswer in verse."
    server.reply("/v1/releases/abc123", {"id": "abc123", "release": release})
    shown = run("release", "diff", str(DEFAULT_RELEASE), "abc123", "--url", server.url)
    assert shown.exit_code == 0, shown.stderr
    assert "prompts.answer:" in shown.stdout
    assert "+Answer in verse." in shown.stdout
    told = json.loads(
        run("release", "diff", str(DEFAULT_RELEASE), "abc123", "--json", "--url", server.url).stdout
    )
    [change] = told["changes"]
    assert change["after"].endswith("Answer in verse.")


def _index(**changed: Any) -> dict[str, Any]:
    return {
        "release": "abc123",
        "state": "serving",
        "documents": {"total": 22, "done": 22, "failed": 0, "left": 0},
        "failures": {},
        "trouble": None,
        "cost": {
            "chunks": 139,
            "tokens_estimate": 0,
            "embedding_seconds": 0.0,
            "embedding_seconds_left": None,
        },
        "eta_seconds": None,
        **changed,
    }


def test_an_index_that_is_in_use_already_is_not_said_to_be_built(server: Server) -> None:
    server.reply("/v1/releases/abc123/index", _index())
    told = run("release", "build-index", "abc123", "--url", server.url)
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.startswith("There is nothing to build: release abc123 ")
    assert "0.0 s" not in told.stdout


def test_an_index_that_is_complete_says_how_its_release_goes_on(server: Server) -> None:
    server.reply("/v1/releases/abc123/index", _index(state="building"))
    told = run("release", "build-index", "abc123", "--url", server.url)
    assert "plumbline release shadow abc123" in told.stdout
    assert "plumbline release promote abc123" in told.stdout


def test_giving_up_an_index_does_not_sound_like_giving_up_its_release(server: Server) -> None:
    server.reply("/v1/releases/abc123/index", {"release": "abc123", "state": "retired"})
    told = run("release", "drop-index", "abc123", "--yes", "--url", server.url)
    assert told.stdout == "The index of release abc123 was given up; a worker removes it.\n"


def test_a_report_is_not_kept_as_a_verdict_and_not_said_to_be_written_over(tmp_path: Path) -> None:
    report = tmp_path / "base.json"
    report.write_text("{}")
    refused = run("release", "judge", str(report))
    assert refused.exit_code == 1
    assert "--out VERDICT" in refused.stderr
    assert f"--out {report}" not in refused.stderr


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ({"passed": False, "outcome": "failed"}, "failed"),
        ({"passed": False, "outcome": "no_verdict"}, "no verdict"),
        ({"passed": False, "outcome": "passed", "withdrawn": {"why": "faults"}}, "passed, then withdrawn"),
    ],
)
def test_the_list_tells_a_lost_evaluation_from_one_that_gave_no_verdict(
    server: Server, evidence: dict[str, Any], said: str
) -> None:
    one = {"id": "abc123", "name": "new", "state": "draft", "bootstrap": False, "evaluated": False}
    server.reply("/v1/releases", {"releases": [{**one, "evidence": evidence, "forced": None}]})
    server.reply("/v1/releases/standing", {"canary": None, "shadow": None, "trials": []})
    row = run("release", "list", "--url", server.url).stdout.splitlines()[1]
    assert row.split("draft")[1].strip() == said


def test_a_release_is_shown_key_by_key_and_its_prompts_as_they_are(server: Server) -> None:
    release = load_release(DEFAULT_RELEASE)
    told = {"id": release.id, "name": release.name, "release": json.loads(release.canonical())}
    server.reply("/v1/releases/champion", told)
    shown = run("release", "show", "--url", server.url).stdout.splitlines()
    assert shown[:3] == [f"id             {release.id}", "name           default", ""]
    assert "search.limit: 8" in shown
    at = shown.index("prompts.answer:")
    assert shown[at + 1] == f"  {release.answer.text.splitlines()[0]}"
    as_json = run("release", "show", "--json", "--url", server.url).stdout
    assert json.loads(as_json) == told


def test_commands_of_other_folders_join_a_group() -> None:
    shown = run("release", "--help")
    assert "report" in shown.stdout
