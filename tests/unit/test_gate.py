"""The gate passes what is no worse and fails everything else, missing evidence included."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from typer.testing import CliRunner

from eval.canary import AT_ONCE, DISLIKED, SLOW, UNSUPPORTED
from eval.cli import commands
from eval.gate import judge
from eval.markdown import report_markdown, verdict_markdown
from eval.report import aggregates, dump, read, report_json, verdict_json
from eval.rules import (
    CANARY_HARMS,
    DEFAULT_RULES,
    SHADOW_HARMS,
    CostRule,
    MetricRule,
    Rules,
    SliceRule,
    SmallRule,
    load_rules,
)
from eval.types import (
    CannotJudge,
    Case,
    CaseResult,
    Check,
    DatasetRef,
    Fault,
    Gold,
    Interval,
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

FAULTS: tuple[Fault, ...] = ("release", "judge")
RULES = Rules(metrics={"context_recall": MetricRule(margin=0.05)}, clustered=False)
COSTS = RULES.model_copy(
    update={
        "metrics": {"context_recall": MetricRule(margin=0.05, role="guard")},
        "costs": {
            "tokens": CostRule(measure="output_tokens", most=1.2, floor=10),
            "slowest": CostRule(measure="seconds", statistic="p95", most=1.5, floor=0.25),
        },
    }
)


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
    assert check.name == "context_recall"
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
        update={"metrics": {"context_recall": MetricRule(margin=0.1, direction="lower", worst=9.0, best=0.0)}}
    )
    assert judge(_report(lambda i: 1.0), _report(lambda i: 0.2), rules).passed
    assert not judge(_report(lambda i: 1.0), _report(lambda i: 2.0), rules).passed


def test_missing_cases_fail_even_when_the_rest_is_better() -> None:
    baseline, candidate = _report(lambda i: 0.2), _report(lambda i: 1.0)
    verdict = judge(baseline, replace(candidate, results=candidate.results[1:]), RULES)
    failed = {check.name: check.reason for check in verdict.checks if not check.passed}
    assert set(failed) == {"cases", "context_recall"}
    assert "case-00" in failed["cases"]


def test_failed_scores_fail_the_gate_however_good_the_rest_is() -> None:
    candidate = _with_failures(_report(lambda i: 1.0), 1)
    verdict = judge(_report(lambda i: 0.2), candidate, RULES)
    assert not verdict.passed
    assert "failed in 1 of its 40 cases" in verdict.checks[-1].reason
    assert verdict.outcome == "failed"


def test_a_case_without_a_value_for_a_metric_counts_as_lost_not_as_before() -> None:
    baseline = _report(lambda i: 1.0)
    candidate = replace(baseline, results=(replace(baseline.results[0], scores={}), *baseline.results[1:]))
    verdict = judge(baseline, candidate, RULES)
    assert verdict.outcome == "failed"
    assert verdict.checks[-1].lost == 1
    assert verdict.checks[-1].candidate == pytest.approx(39 / 40)


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


@pytest.mark.parametrize("name", ["other", "handbook"])
def test_different_data_cannot_be_judged(name: str) -> None:
    """Whatever they are called."""
    other = replace(_report(lambda i: 1.0), dataset=DatasetRef(name=name, version="1", fingerprint="b" * 64))
    with pytest.raises(CannotJudge, match="different data"):
        judge(_report(lambda i: 1.0), other, RULES)


@pytest.mark.parametrize("name", ["another x1", None])
def test_verdicts_of_different_judges_cannot_be_compared(name: str | None) -> None:
    judged = replace(_report(lambda i: 1.0), judge="a-model x1")
    with pytest.raises(CannotJudge, match=r"different judges: a-model x1 and (another x1|none)"):
        judge(judged, replace(judged, judge=name), RULES)
    assert judge(judged, judged, RULES).passed
    assert judge(replace(judged, judge=None), judged, RULES).passed


def test_a_baseline_without_evidence_cannot_be_judged_against() -> None:
    good = _report(lambda i: 1.0)
    with pytest.raises(CannotJudge, match="only"):
        judge(_with_failures(good, 1), good, RULES)
    with pytest.raises(CannotJudge, match="broke off"):
        judge(replace(good, error="no"), good, RULES)
    with pytest.raises(CannotJudge, match="none of the metrics"):
        judge(good, good, Rules(metrics={"unheard_of": MetricRule(margin=0.1)}))


def test_a_gated_metric_must_show_that_nothing_is_lost_and_a_guard_must_not_show_a_loss() -> None:
    baseline, noisy = _report(lambda i: 1.0), _report(lambda i: 0.5 if i < 3 else 1.0)
    guarded = _rules(MetricRule(margin=0.05, role="guard"))
    assert not judge(baseline, noisy, RULES).passed
    assert judge(baseline, noisy, guarded).passed
    verdict = judge(baseline, _report(lambda i: 0.0 if i < 20 else 1.0), guarded)
    assert verdict.outcome == "failed"
    [check] = [check for check in verdict.checks if not check.passed]
    assert check.role == "guard"
    assert check.p_value is not None
    assert check.p_value < RULES.alpha


def test_an_unchanged_release_passes_and_the_verdict_says_what_could_have_been_seen() -> None:
    report = _report(lambda i: 1.0)
    check = _metric(judge(report, report, RULES))
    assert check.difference == Interval(0, 0, 0)
    assert check.visible == pytest.approx(1 - RULES.alpha ** (1 / 40))


def test_a_small_set_has_wider_margins_where_the_rules_say_so() -> None:
    slightly = _report(lambda i: 0.94)
    assert not judge(_report(lambda i: 1.0), slightly, RULES).passed
    small = RULES.model_copy(update={"small": SmallRule(below=41, margin_factor=2)})
    verdict = judge(_report(lambda i: 1.0), slightly, small)
    assert verdict.passed
    assert _metric(verdict).margin == 0.1
    large = RULES.model_copy(update={"small": SmallRule(below=40, margin_factor=2)})
    assert not judge(_report(lambda i: 1.0), slightly, large).passed


def test_a_loss_in_one_part_of_the_cases_is_seen_though_the_whole_is_no_worse() -> None:
    baseline = _tagged(_report(lambda i: 0.5), lambda i: "de" if i < 20 else "en")
    candidate = _tagged(_report(lambda i: 0.1 if i < 20 else 0.98), lambda i: "de" if i < 20 else "en")
    rules = _rules(MetricRule(margin=0.05, role="guard"))
    verdict = judge(baseline, candidate, rules)
    assert [(check.role, check.slice) for check in verdict.checks if not check.passed] == [
        ("slice", "language:de")
    ]
    slices = [check for check in verdict.checks if check.role == "slice"]
    assert [(check.slice, check.cases, check.margin) for check in slices] == [
        ("language:de", 20, 0.1),
        ("language:en", 20, 0.1),
    ]
    few = rules.model_copy(update={"slices": SliceRule(cases=21)})
    assert judge(baseline, candidate, few).passed


def test_a_part_needs_no_values_of_its_own_and_is_undecided_only_where_a_loss_may_have_been_lost() -> None:
    """Its cases are counted with the whole: of twenty one that was lost would always be too many."""
    rules = _rules(MetricRule(margin=0.2)).model_copy(update={"coverage": 0.97})
    before, after = (_tagged(_report(lambda i: 1.0), lambda i: "de" if i < 20 else "en") for _ in range(2))
    for fault in FAULTS:
        assert judge(before, _with_failures(after, 1, fault), rules).outcome == "passed"


def test_clusters_make_a_gate_less_sure() -> None:
    """The losses are all in two documents of ten: another draw may have had more of those."""
    before, after = _report(lambda i: 1.0), _report(lambda i: 0.4 if i < 8 else 0.99)
    for clustered, outcome in ((False, "passed"), (True, "failed")):
        rules = _rules(MetricRule(margin=0.25)).model_copy(update={"clustered": clustered})
        assert judge(before, after, rules).outcome == outcome


def test_a_loss_that_may_be_none_is_not_said_to_be_shown() -> None:
    before, after = _report(lambda i: 1.0), _report(lambda i: 0.84 if i % 2 else 1.0)
    verdict = judge(before, after, _rules(MetricRule(margin=0.09)))
    assert verdict.outcome == "failed"
    assert _metric(verdict).reason.startswith("A loss of 0.09 or more cannot be ruled out")


def test_the_worst_cases_are_those_of_the_metrics_that_failed_each_in_the_one_where_it_lost_most() -> None:
    rules = Rules(
        metrics={
            "context_recall": MetricRule(margin=0.05),
            "flaws": MetricRule(margin=0.05, direction="lower", worst=1.0, best=0.0),
            "taste": MetricRule(margin=0.5, role="guard"),
        },
        clustered=False,
    )
    before = _scored(
        _report(lambda i: 1.0),
        {"context_recall": lambda i: 1.0, "flaws": lambda i: 0.0, "taste": lambda i: 1.0},
    )
    after = _scored(
        _report(lambda i: 1.0),
        {
            "context_recall": lambda i: 0.2 if i < 2 else 1.0,
            "flaws": lambda i: 0.9 if i in (1, 2) else 0.0,
            "taste": lambda i: 0.0 if i == 3 else 1.0,
        },
    )
    verdict = judge(before, after, rules)
    assert [(one.case_id, one.metric) for one in verdict.regressions] == [
        ("case-01", "flaws"),
        ("case-02", "flaws"),
        ("case-00", "context_recall"),
    ]


def test_many_guards_are_judged_together() -> None:
    """A loss that one guard alone would show is none among forty: one of them was bound to look bad."""
    names = [f"guard_{place}" for place in range(40)]
    before = _scored(_report(lambda i: 1.0), {name: lambda i: 1.0 for name in names})
    lost = {
        name: (lambda i: 0.5 if i < 16 else 1.0) if name == "guard_0" else (lambda i: 1.0) for name in names
    }
    after = _scored(_report(lambda i: 1.0), lost)
    alone = Rules(metrics={"guard_0": MetricRule(margin=0.05, role="guard")}, clustered=False)
    every = Rules(metrics={name: MetricRule(margin=0.05, role="guard") for name in names}, clustered=False)
    assert judge(before, after, alone).outcome == "failed"
    assert judge(before, after, every).outcome == "passed"


@pytest.mark.parametrize("role", ["gated", "guard"])
def test_scores_that_the_judge_lost_leave_no_verdict(role: Literal["gated", "guard"]) -> None:
    rules, baseline = _rules(MetricRule(margin=0.05, role=role)), _report(lambda i: 0.9)
    candidate = _with_failures(_report(lambda i: 1.0), 10, "judge")
    verdict = judge(baseline, candidate, rules)
    assert verdict.outcome == "no_verdict"
    assert not verdict.passed
    check = _metric(verdict)
    assert check.undecided
    assert check.lost == 10
    assert "judge gave no value for 10 of its 40 cases" in check.reason


def test_lost_scores_leave_no_verdict_even_where_the_worst_of_them_would_have_passed() -> None:
    candidate = _with_failures(_report(lambda i: 0.0), 1, "judge")
    verdict = judge(_report(lambda i: 0.0), candidate, _rules(MetricRule(margin=0.001)))
    assert verdict.outcome == "no_verdict"


@pytest.mark.parametrize("role", ["gated", "guard"])
def test_a_loss_that_was_seen_fails_although_the_judge_lost_scores_too(
    role: Literal["gated", "guard"],
) -> None:
    candidate, rules = _with_failures(_report(lambda i: 0.1), 10, "judge"), MetricRule(margin=0.05, role=role)
    assert judge(_report(lambda i: 0.9), candidate, _rules(rules)).outcome == "failed"


def test_the_releases_own_failures_weigh_more_than_the_judges() -> None:
    candidate = _with_failures(_report(lambda i: 1.0), 4)
    results = [
        replace(result, scores={"context_recall": Score(None, "away", "judge")}) if i > 30 else result
        for i, result in enumerate(candidate.results)
    ]
    verdict = judge(_report(lambda i: 0.9), replace(candidate, results=tuple(results)), RULES)
    assert verdict.outcome == "failed"


def test_a_few_scores_that_the_judge_lost_count_as_lost() -> None:
    rules = RULES.model_copy(update={"coverage": 0.9})
    candidate = _with_failures(_report(lambda i: 1.0), 4, "judge")
    verdict = judge(_report(lambda i: 1.0), candidate, rules)
    assert _metric(verdict).candidate == pytest.approx(0.9)
    assert verdict.outcome == "failed"


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_leak_fails_whichever_report_found_it(side: str) -> None:
    report = _report(lambda i: 1.0)
    leaky = replace(report, leaks=("The prompt has case-01's answer.",))
    pair = (leaky, report) if side == "baseline" else (report, leaky)
    verdict = judge(*pair, RULES)
    [check] = [check for check in verdict.checks if not check.passed]
    assert (check.name, check.role) == ("leaks", "evidence")
    assert "case-01" in check.reason


def test_a_release_that_costs_more_than_it_may_fails() -> None:
    baseline = _costing(_report(lambda i: 1.0), lambda i: (100 + i, 0.2))
    assert judge(baseline, _costing(baseline, lambda i: (110 + i, 0.28)), COSTS).passed
    verdict = judge(baseline, _costing(baseline, lambda i: (150 + i, 0.2)), COSTS)
    [check] = [check for check in verdict.checks if not check.passed]
    assert (check.name, check.role, check.margin) == ("tokens", "cost", 1.2)
    assert check.ratio
    assert check.ratio.mean == pytest.approx((150 + 19.5) / (100 + 19.5))
    assert check.ratio.low > 1.2
    slow = judge(baseline, _costing(baseline, lambda i: (100 + i, 0.9)), COSTS)
    assert [check.name for check in slow.checks if not check.passed] == ["slowest"]


def test_the_cost_of_cases_that_are_missing_or_of_one_alone_says_nothing() -> None:
    report = _costing(_report(lambda i: 1.0), lambda i: (100, 1.0))
    verdict = judge(report, replace(report, results=report.results[2:]), COSTS)
    [cases] = [check for check in verdict.checks if check.name == "cases"]
    assert (cases.lost, cases.passed) == (2, False)
    assert {check.cases for check in verdict.checks if check.role == "cost"} == {38}
    alone = replace(report, results=report.results[:1])
    dear = _costing(alone, lambda i: (1_000, 10.0))
    assert [check for check in judge(alone, dear, COSTS).checks if check.role == "cost"] == []


def test_a_cost_below_its_floor_is_no_harm_and_one_from_nothing_has_no_ratio() -> None:
    baseline = _costing(_report(lambda i: 1.0), lambda i: (2, 0.01))
    assert judge(baseline, _costing(baseline, lambda i: (6, 0.1)), COSTS).passed
    free = _costing(baseline, lambda i: (0, 0.01))
    assert "tokens" not in {check.name for check in judge(free, baseline, COSTS).checks}


def test_the_same_reports_give_the_same_verdict_in_any_order() -> None:
    baseline = _costing(_report(lambda i: i / 40), lambda i: (100 + i % 7, 0.1 + i / 100))
    candidate = _costing(_report(lambda i: (i * 7 % 40) / 40), lambda i: (90 + i % 11, 0.2 + i / 90))
    verdict = judge(baseline, candidate, COSTS)
    assert judge(baseline, candidate, COSTS) == verdict
    turned = judge(_turned(baseline), _turned(candidate), COSTS)
    assert turned.checks == verdict.checks


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
    found = aggregates(_with_failures(_report(lambda i: 1.0), 20))["context_recall"]
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
    assert "| context_recall | 1.000 |" in report_markdown(report)


def test_the_shipped_rules_load_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    assert "context_recall" in load_rules().metrics
    (tmp_path / "rules.toml").write_text("[metrics.context_recall]\nmargin = 0.1\nmargn = 2\n")
    with pytest.raises(RulesInvalid, match="margn"):
        load_rules(tmp_path / "rules.toml")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[metrics.groundednes]\nmargin = 0.1\n", "metrics.groundednes: there is no such metric"),
        ("[metrics.empty]\nmargin = 0.1\n", 'metrics.empty: its direction is "lower"'),
    ],
)
def test_a_rule_that_would_guard_nothing_is_refused(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "rules.toml").write_text(written)
    with pytest.raises(RulesInvalid, match=said):
        load_rules(tmp_path / "rules.toml")


@pytest.mark.parametrize(("trial", "harm"), [("canary", "fault"), ("shadow", "disliked")])
def test_what_no_trial_tells_cannot_be_watched(tmp_path: Path, trial: str, harm: str) -> None:
    shipped = DEFAULT_RULES.read_text()
    rules, found = re.subn(rf"^\[{trial}.metrics.slow]", f"[{trial}.metrics.{harm}]", shipped, flags=re.M)
    assert found == 1
    (tmp_path / "rules.toml").write_text(rules)
    with pytest.raises(RulesInvalid, match=f"{trial}: .*nothing tells {harm}; there are .*slow"):
        load_rules(tmp_path / "rules.toml")


def test_what_can_be_watched_is_what_trials_tell() -> None:
    assert {*AT_ONCE, SLOW, UNSUPPORTED} == SHADOW_HARMS
    assert {*SHADOW_HARMS, DISLIKED} == CANARY_HARMS


def test_the_exit_code_decides(tmp_path: Path) -> None:
    good, bad = _saved(tmp_path, "good", 1.0), _saved(tmp_path, "bad", 0.0)
    rules = tmp_path / "rules.toml"
    rules.write_text("[metrics.context_recall]\nmargin = 0.05\n")
    runner = CliRunner()

    def gate(*arguments: str) -> int:
        return runner.invoke(commands, ["gate", *arguments, "--rules", str(rules)]).exit_code

    assert gate(good, good) == 0
    assert gate(good, bad, "--out", str(tmp_path / "verdict.json")) == 1
    assert gate(good, str(tmp_path / "nowhere.json")) == 2
    assert (
        gate(good, _saved_report(tmp_path, "away", _with_failures(_report(lambda i: 1.0), 9, "judge"))) == 2
    )
    verdict = read(tmp_path / "verdict.json")
    assert isinstance(verdict, Verdict)
    assert not verdict.passed
    assert (tmp_path / "verdict.md").read_text().startswith("# FAIL")


def test_the_last_line_says_the_outcome(tmp_path: Path) -> None:
    good, bad = _saved(tmp_path, "good", 1.0), _saved(tmp_path, "bad", 0.0)
    rules = tmp_path / "rules.toml"
    rules.write_text("[metrics.context_recall]\nmargin = 0.05\n")
    ended = CliRunner().invoke(commands, ["gate", good, bad, "--rules", str(rules)])
    assert ended.stderr.splitlines()[-1].startswith("FAIL: ")
    assert "may not" in ended.stderr.splitlines()[-1]


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
        scores={"context_recall": Score(value)},
    )


def _with_failures(report: Report, count: int, fault: Fault = "release") -> Report:
    lost = {"context_recall": Score(None, "the request failed", fault)}
    results = [
        replace(result, scores=lost) if i < count else result for i, result in enumerate(report.results)
    ]
    return replace(report, results=tuple(results))


def _released(report: Report, body: object) -> Report:
    return replace(report, release=replace(report.release, canonical=json.dumps(body)))


def _saved(folder: Path, name: str, value: float) -> str:
    return _saved_report(folder, name, _report(lambda i: value))


def _saved_report(folder: Path, name: str, report: Report) -> str:
    path = folder / f"{name}.json"
    path.write_text(dump(report_json(report)))
    return str(path)


def _turned(report: Report) -> Report:
    return replace(report, results=report.results[::-1])


def _rules(rule: MetricRule) -> Rules:
    return RULES.model_copy(update={"metrics": {"context_recall": rule}})


def _metric(verdict: Verdict) -> Check:
    return next(check for check in verdict.checks if check.name == "context_recall")


def _tagged(report: Report, language: Callable[[int], str]) -> Report:
    results = [
        replace(result, case=replace(result.case, language=language(i)))
        for i, result in enumerate(report.results)
    ]
    return replace(report, results=tuple(results))


def _scored(report: Report, values: Mapping[str, Callable[[int], float]]) -> Report:
    results = [
        replace(result, scores={name: Score(value(i)) for name, value in values.items()})
        for i, result in enumerate(report.results)
    ]
    return replace(report, results=tuple(results))


def _costing(report: Report, cost: Callable[[int], tuple[int, float]]) -> Report:
    """The same answers at so many tokens and seconds."""
    results = []
    for i, result in enumerate(report.results):
        assert result.sample.reply
        tokens, seconds = cost(i)
        reply = replace(result.sample.reply, output_tokens=tokens, seconds=seconds)
        results.append(replace(result, sample=replace(result.sample, reply=reply)))
    return replace(report, results=tuple(results))
