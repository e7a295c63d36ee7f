"""The gate passes what is no worse and fails everything else, missing evidence included."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.cli import commands
from eval.gate import judge
from eval.markdown import report_markdown, verdict_markdown
from eval.report import aggregates, dump, read, report_json, verdict_json
from eval.rules import MetricRule, Rules, load_rules
from eval.types import (
    CannotJudge,
    Case,
    CaseResult,
    DatasetRef,
    Gold,
    Passage,
    ReleaseRef,
    Reply,
    Report,
    ReportInvalid,
    RulesInvalid,
    Sample,
    Score,
    Verdict,
)

RULES = Rules(metrics={"recall": MetricRule(margin=0.05)}, clustered=False, resamples=2_000)


def test_an_unchanged_release_passes() -> None:
    report = _report(lambda i: i % 3 / 2)
    verdict = judge(report, report, RULES)
    assert verdict.passed
    assert verdict.changes == ()
    assert verdict.regressions == ()
    assert all(check.passed for check in verdict.checks)


def test_a_better_release_passes() -> None:
    assert judge(_report(lambda i: 0.5), _report(lambda i: 0.5 + i % 2 / 4), RULES).passed


def test_a_worse_release_fails_and_names_the_metric_and_the_worst_cases() -> None:
    verdict = judge(_report(lambda i: 1.0), _report(lambda i: 0.0 if i < 10 else 1.0), RULES)
    assert not verdict.passed
    [check] = [check for check in verdict.checks if not check.passed]
    assert check.name == "recall"
    assert check.difference
    assert check.difference.mean == pytest.approx(-0.25)
    assert check.difference.high < -0.05
    assert "more than 0.05" in check.reason
    assert [regression.case_id for regression in verdict.regressions] == [f"case-{i:02}" for i in range(5)]
    assert verdict.regressions[0].candidate_answer == "answer 0"


def test_a_loss_within_the_margin_passes_and_one_that_cannot_be_ruled_out_fails() -> None:
    baseline = _report(lambda i: 1.0)
    assert judge(baseline, _report(lambda i: 0.98), RULES).passed
    noisy = judge(baseline, _report(lambda i: 0.5 if i < 3 else 1.0), RULES)
    assert not noisy.passed
    assert "cannot be ruled out" in noisy.checks[-1].reason


def test_less_is_better_where_the_rule_says_so() -> None:
    rules = RULES.model_copy(
        update={"metrics": {"recall": MetricRule(margin=0.1, direction="lower", worst=9.0, best=0.0)}}
    )
    assert judge(_report(lambda i: 1.0), _report(lambda i: 0.2), rules).passed
    assert not judge(_report(lambda i: 1.0), _report(lambda i: 2.0), rules).passed


def test_missing_cases_fail_even_when_the_rest_is_better() -> None:
    baseline, candidate = _report(lambda i: 0.2), _report(lambda i: 1.0)
    verdict = judge(baseline, replace(candidate, results=candidate.results[1:]), RULES)
    failed = {check.name: check.reason for check in verdict.checks if not check.passed}
    assert set(failed) == {"cases", "recall"}
    assert "case-00" in failed["cases"]


def test_failed_scores_fail_the_gate_however_good_the_rest_is() -> None:
    candidate = _with_failures(_report(lambda i: 1.0), 1)
    verdict = judge(_report(lambda i: 0.2), candidate, RULES)
    assert not verdict.passed
    assert "97.5%" in verdict.checks[-1].reason


def test_a_failure_counts_as_the_worst_value() -> None:
    rules = RULES.model_copy(update={"coverage": 0.5})
    verdict = judge(_report(lambda i: 1.0), _with_failures(_report(lambda i: 1.0), 10), rules)
    assert not verdict.passed
    assert verdict.checks[-1].candidate == pytest.approx(0.75)


def test_a_failure_of_the_baseline_never_helps_the_candidate() -> None:
    rules = RULES.model_copy(update={"coverage": 0.5})
    verdict = judge(_with_failures(_report(lambda i: 0.0), 10), _report(lambda i: 0.0), rules)
    assert not verdict.passed
    assert verdict.checks[-1].baseline == pytest.approx(0.25)


def test_an_evaluation_that_broke_off_fails_and_says_why() -> None:
    candidate = replace(_report(lambda i: 1.0), error="It did not start.")
    verdict = judge(_report(lambda i: 1.0), candidate, RULES)
    assert not verdict.passed
    assert "It did not start." in verdict.checks[0].reason


def test_different_data_cannot_be_judged() -> None:
    other = replace(
        _report(lambda i: 1.0), dataset=DatasetRef(name="other", version="1", fingerprint="b" * 64)
    )
    with pytest.raises(CannotJudge, match="different data"):
        judge(_report(lambda i: 1.0), other, RULES)


def test_a_baseline_without_evidence_cannot_be_judged_against() -> None:
    good = _report(lambda i: 1.0)
    with pytest.raises(CannotJudge, match="only"):
        judge(_with_failures(good, 1), good, RULES)
    with pytest.raises(CannotJudge, match="broke off"):
        judge(replace(good, error="no"), good, RULES)
    with pytest.raises(CannotJudge, match="none of the metrics"):
        judge(good, good, Rules(metrics={"unheard_of": MetricRule(margin=0.1)}))


def test_the_verdict_says_what_changed_in_the_release() -> None:
    baseline = _report(lambda i: 1.0)
    prompt = "Use only what the passages say.\nBe brief.\n"
    before = {"name": "a", "search": {"limit": 8}, "prompts": {"answer": prompt + "{passages}"}}
    after = {"name": "a", "search": {"limit": 1}, "prompts": {"answer": prompt + "{question}"}}
    verdict = judge(_released(baseline, before), _released(baseline, after), RULES)
    assert {change.path for change in verdict.changes} == {"search.limit", "prompts.answer"}
    text = verdict_markdown(verdict)
    assert "`search.limit`: `8` to `1`" in text
    assert "\n  -{passages}\n" in text
    assert "\n  +{question}\n" in text
    assert "Be brief." not in text


def test_reports_and_verdicts_survive_their_files(tmp_path: Path) -> None:
    report = _with_failures(_report(lambda i: i / 40), 2)
    verdict = judge(_report(lambda i: 1.0), report, RULES)
    (tmp_path / "report.json").write_text(dump(report_json(report)))
    (tmp_path / "verdict.json").write_text(dump(verdict_json(verdict)))
    read_back = read(tmp_path / "report.json")
    assert isinstance(read_back, Report)
    assert read_back.results[5].case == report.results[5].case
    assert read_back.results[5].scores == report.results[5].scores
    assert aggregates(read_back) == aggregates(report)
    assert read(tmp_path / "verdict.json") == verdict


def test_a_report_keeps_no_text_of_the_corpus() -> None:
    assert "the passage's text" not in dump(report_json(_report(lambda i: 1.0)))


def test_a_file_that_is_no_report_is_told_so(tmp_path: Path) -> None:
    for content in ("nonsense", "[]", '{"kind": "report", "format": 1}', '{"kind": "report", "format": 99}'):
        (tmp_path / "file.json").write_text(content)
        with pytest.raises(ReportInvalid):
            read(tmp_path / "file.json")


def test_a_mean_counts_failures_and_never_drops_them() -> None:
    found = aggregates(_with_failures(_report(lambda i: 1.0), 20))["recall"]
    assert (found.mean, found.cases, found.failed) == (0.5, 40, 20)


def test_an_answer_cannot_redraw_the_report() -> None:
    report = _report(lambda i: 1.0, answer="# PASS\n| a | b |\n<script>alert(1)</script> ![x](http://evil)")
    text = verdict_markdown(judge(report, _with_failures(report, 1), RULES))
    assert text.startswith("# FAIL")
    assert "\n# PASS" not in text
    assert r"\<script" in text
    assert r"\!\[x\]" in text


def test_the_markdown_begins_with_the_verdict() -> None:
    report = _report(lambda i: 1.0)
    assert verdict_markdown(judge(report, report, RULES)).startswith("# PASS: default")
    assert "| recall | 1.000 |" in report_markdown(report)


def test_the_shipped_rules_load_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    assert "context_recall" in load_rules().metrics
    (tmp_path / "rules.toml").write_text("[metrics.recall]\nmargin = 0.1\nmargn = 2\n")
    with pytest.raises(RulesInvalid, match="margn"):
        load_rules(tmp_path / "rules.toml")


def test_the_exit_code_decides(tmp_path: Path) -> None:
    good, bad = _saved(tmp_path, "good", 1.0), _saved(tmp_path, "bad", 0.0)
    rules = tmp_path / "rules.toml"
    rules.write_text("[metrics.recall]\nmargin = 0.05\n")
    runner = CliRunner()

    def gate(*arguments: str) -> int:
        return runner.invoke(commands, ["gate", *arguments, "--rules", str(rules)]).exit_code

    assert gate(good, good) == 0
    assert gate(good, bad, "--out", str(tmp_path / "verdict.json")) == 1
    assert gate(good, str(tmp_path / "nowhere.json")) == 2
    verdict = read(tmp_path / "verdict.json")
    assert isinstance(verdict, Verdict)
    assert not verdict.passed
    assert (tmp_path / "verdict.md").read_text().startswith("# FAIL")


def test_a_verdict_can_be_shown_again(tmp_path: Path) -> None:
    shown = CliRunner().invoke(commands, ["report", _saved(tmp_path, "good", 1.0)])
    assert shown.exit_code == 0
    assert shown.output.startswith("# Evaluation of default")


def _report(value: Callable[[int], float], answer: str = "") -> Report:
    canonical = json.dumps({"name": "default"})
    return Report(
        dataset=DatasetRef(name="handbook", version="1", fingerprint="a" * 64),
        release=ReleaseRef(id="0123456789ab", name="default", fingerprint="0" * 64, canonical=canonical),
        product="0.1.0",
        started_at="2026-06-01T12:00:00+00:00",
        seconds=12.0,
        results=tuple(_result(i, value(i), answer or f"answer {i}") for i in range(40)),
    )


def _result(i: int, value: float, answer: str) -> CaseResult:
    passage = Passage(document_id="doc", chunk_id=f"{i}-0", text="the passage's text")
    reply = Reply(
        text=answer,
        citations=(passage,),
        sources=(passage,),
        model="extractive",
        release="0123456789ab",
        degraded=(),
        seconds=0.1,
    )
    return CaseResult(
        case=Case(id=f"case-{i:02}", question=f"question {i}", gold=(Gold(f"doc-{i // 4}", "quote"),)),
        sample=Sample(case_id=f"case-{i:02}", reply=reply, hits=(passage,), errors={}),
        scores={"recall": Score(value)},
    )


def _with_failures(report: Report, count: int) -> Report:
    lost = {"recall": Score(None, "the request failed")}
    results = [
        replace(result, scores=lost) if i < count else result for i, result in enumerate(report.results)
    ]
    return replace(report, results=tuple(results))


def _released(report: Report, body: object) -> Report:
    return replace(report, release=replace(report.release, canonical=json.dumps(body)))


def _saved(folder: Path, name: str, value: float) -> str:
    path = folder / f"{name}.json"
    path.write_text(dump(report_json(_report(lambda i: value))))
    return str(path)
