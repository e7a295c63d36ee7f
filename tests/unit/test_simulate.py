"""A short simulation: figures have the right size, targets are checked, and errors can be made to show."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eval.cli import commands
from eval.rules import Rules, Step, load_rules
from eval.simulation import canaries, releases, shadows
from eval.simulation.canaries import RATES, World
from eval.simulation.rows import Row, Table, percentile, share


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules()


def test_the_gate_errs_about_as_often_as_it_says(rules: Rules) -> None:
    """600 releases: the standard errors are 0.4, 0.6 and 0.9 points."""
    promoted, blocked, covered = releases.targets(rules, 600, np.random.default_rng(1), _silent)
    assert promoted.value < 0.025
    assert blocked.value < 0.045
    assert 0.92 < covered.value < 0.98


def test_more_cases_show_smaller_losses(rules: Rules) -> None:
    rows = _named(releases.intervals(rules, 40, np.random.default_rng(1), _silent))
    for kind in ("shares", "right or wrong"):
        visible = [
            rows[f"{cases} cases, {kind}", "smallest loss that shows 4 times in 5"].value
            for cases in (60, 500, 1_000)
        ]
        assert visible == sorted(visible, reverse=True)
        assert visible[0] > 3 * visible[-1]


def test_lost_scores_never_let_a_loss_through(rules: Rules) -> None:
    rows = _named(releases.troubles(rules, 3, np.random.default_rng(1), _silent))
    for who in ("release", "judge"):
        assert rows[f"its 30 worst cases lost by the {who}", "3-point loss: promoted"].value == 0
    assert rows["its 30 worst cases lost by the judge", "equal: no verdict"].value == 1
    assert rows["its 30 worst cases lost by the release", "equal: blocked"].value == 1


def test_made_up_differences_have_the_spread_and_the_likeness_that_was_asked_for() -> None:
    world = releases.World(loss=0.1, icc=0.5, cluster=4)
    drawn = np.array(list(world.draw(np.random.default_rng(1), 50)))
    assert drawn.mean() == pytest.approx(-0.1, abs=0.01)
    assert drawn.std() == pytest.approx(0.2, rel=0.03)
    clusters = drawn.reshape(50, -1, 4)
    assert np.corrcoef(clusters[..., 0].ravel(), clusters[..., 1].ravel())[0, 1] == pytest.approx(
        0.5, abs=0.05
    )
    wrong = np.array(list(releases.World(loss=0.03, discordant=0.1).draw(np.random.default_rng(2), 50)))
    assert wrong.mean() == pytest.approx(-0.03, abs=0.005)
    assert (wrong != 0).mean() == pytest.approx(0.1, abs=0.01)


def test_an_equal_canary_is_seldom_rolled_back_and_a_harmful_one_is(rules: Rules) -> None:
    assert rules.canary
    generator = np.random.default_rng(3)
    equal = World(conversations=20_000, icc=0.2)
    false = [canaries.run(equal, rules.canary, generator) for _ in range(40)]
    assert sum(alarm is not None for alarm in false) <= 3
    sick = World(conversations=20_000, extra={"faults": 0.2})
    alarms = [canaries.run(sick, rules.canary, generator) for _ in range(10)]
    assert all(alarm and alarm.metric == "faults" and alarm.units < 60 for alarm in alarms)


def test_a_cold_cache_looks_like_harm_unless_cached_answers_are_left_out(rules: Rules) -> None:
    assert rules.canary
    wide = rules.canary.model_copy(
        update={"steps": (Step(share=0.5, units=9_999),), "exposure": 9_999, "tenant_units": 9_999}
    )
    rates = {**RATES, "slow": 0.4}
    found = {
        count_cached: [
            canaries.run(
                World(conversations=10_000, rates=rates, count_cached=count_cached),
                wide,
                np.random.default_rng(seed),
            )
            is not None
            for seed in range(12)
        ]
        for count_cached in (False, True)
    }
    assert sum(found[False]) <= 1
    assert sum(found[True]) >= 6


def test_a_shadow_finds_a_loss_of_five_points(rules: Rules) -> None:
    assert rules.shadow
    tenth, fifth, equal = shadows.simulated(rules.shadow, 200, _silent)
    assert 500 < tenth.value < 1_100
    assert 1_000 < fifth.value < 2_100
    assert equal.value <= 0.03


def test_a_table_says_whether_its_targets_are_met() -> None:
    good = share("a", "b", [True] * 5 + [False] * 95, high=0.06)
    bad = share("a", "b", [True] * 5 + [False] * 95, low=0.94, high=0.96)
    never = percentile("a", "c", [5.0] * 90 + [math.inf] * 10, unit="pairs", high=9)
    assert (good.met, bad.met, never.met) == (True, False, False)
    assert percentile("a", "c", [5.0] * 96 + [math.inf] * 4, unit="pairs", high=9).met
    assert share("a", "b", [True]).met is None
    assert Table((good,)).met
    table = Table((good, bad, never))
    assert not table.met
    assert "| a | b | 5.00% | 2.18% | at most 6.00% | yes | 100 |" in table.markdown
    assert "| a | c | never |  | at most 9 pairs | **NO** | 100 |" in table.markdown
    assert [row["met"] for row in json.loads(table.json)["rows"]] == [True, False, False]
    assert json.loads(table.json)["rows"][2]["value"] is None


def test_the_command_exits_by_its_targets(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    none = ["simulate", "--releases", "0", "--canaries", "0"]
    runner = CliRunner()
    met = runner.invoke(commands, [*none, "--shadows", "300", "--out", str(out)])
    assert met.exit_code == 0, met.output
    assert json.loads(out.read_text())["met"] is True
    assert out.with_suffix(".md").read_text().startswith("| what |")
    careless = tmp_path / "rules.toml"
    shipped = Path("eval/rules.toml").read_text()
    careless.write_text(
        shipped.replace("alternatives = [[0.2, 0.7], [0.4, 0.3]]", "alternatives = [[0.95, 1.0]]")
    )
    missed = runner.invoke(commands, [*none, "--shadows", "50", "--rules", str(careless)])
    assert missed.exit_code == 1
    assert "**NO**" in missed.output


def _named(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    return {(row.about, row.name): row for row in rows}


def _silent(step: str, done: int, total: int) -> None:
    """Nobody watches."""
