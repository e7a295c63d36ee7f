"""The sequential tests bet fairly: nothing is gained from chance, and harm shows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from eval.rules import CanaryRules, ShadowRules, Step, Watched, load_rules
from eval.sequential import CanaryTests, LabelTest, PairTest, ShadowTests

SHARE, RATIO = 0.1, 4.0


def test_a_harmed_unit_of_the_candidate_multiplies_the_wealth_by_the_likelihood_ratio() -> None:
    raised = SHARE * RATIO / (SHARE * RATIO + 1 - SHARE)
    test = LabelTest([(RATIO, 1.0)])
    test.update(True, SHARE, 1.0)
    assert test.e_value == pytest.approx(raised / SHARE)
    test.update(False, SHARE, 1.0)
    assert test.e_value == pytest.approx(raised / SHARE * (1 - raised) / (1 - SHARE))


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_a_bet_is_fair_where_the_candidate_does_as_much_harm_as_it_may(ratio: float) -> None:
    """The mean of the wealth after one harmed unit, over whom it belongs to, is what it was: 1."""
    for share in (0.01, 0.2, 0.5):
        of_candidate = share * ratio / (share * ratio + 1 - share)
        expected = of_candidate * _after(True, share, ratio) + (1 - of_candidate) * _after(
            False, share, ratio
        )
        assert expected == pytest.approx(1)
        less = share / 2 * _after(True, share, ratio) + (1 - share / 2) * _after(False, share, ratio)
        assert less < 1


def test_a_little_harm_moves_the_wealth_a_little() -> None:
    whole, part = LabelTest([(RATIO, 1.0)]), LabelTest([(RATIO, 1.0)])
    whole.update(True, SHARE, 1.0)
    part.update(True, SHARE, 0.25)
    assert part.e_value - 1 == pytest.approx((whole.e_value - 1) / 4)


def test_units_without_harm_or_without_a_draw_change_nothing() -> None:
    test = LabelTest([(RATIO, 1.0)])
    for candidate in (True, False):
        test.update(candidate, SHARE, 0.0)
        test.update(candidate, 0.0, 1.0)
        test.update(candidate, 1.0, 1.0)
    assert test.e_value == 1


def test_the_order_of_units_does_not_matter_and_many_at_once_are_one_after_the_other() -> None:
    generator = np.random.default_rng(1)
    candidate, share = generator.random(200) < 0.3, generator.uniform(0.05, 0.5, 200)
    harm = generator.random(200) * (generator.random(200) < 0.5)
    forwards, backwards, single = (LabelTest([(2.0, 0.3), (9.0, 0.7)]) for _ in range(3))
    path = forwards.extend(candidate, share, harm)
    backwards.extend(candidate[::-1], share[::-1], harm[::-1])
    for unit in zip(candidate.tolist(), share.tolist(), harm.tolist(), strict=True):
        single.update(*unit)
    assert len(path) == 200
    assert path[-1] == forwards.e_value
    assert forwards.e_value == pytest.approx(backwards.e_value)
    assert forwards.e_value == pytest.approx(single.e_value)


def test_harm_beyond_its_bounds_is_refused() -> None:
    for harm in (-0.5, 1.5):
        with pytest.raises(ValueError, match="harm"):
            LabelTest([(RATIO, 1.0)]).update(True, SHARE, harm)
    with pytest.raises(ValueError, match="loss"):
        PairTest([(0.2, 1.0)]).update(-1.1)


def test_an_equal_candidate_is_seldom_accused_however_often_one_looks() -> None:
    """4 000 trials with shares and rates that change all the time; the standard error is 0.4 points."""
    generator, accused = np.random.default_rng(2), 0
    for _ in range(4_000):
        share = generator.choice([0.01, 0.05, 0.25], 300)
        harm = (generator.random(300) < generator.uniform(0, 1, 300)).astype(np.float64)
        path = LabelTest([(2.0, 0.5), (10.0, 0.5)]).extend(generator.random(300) < share, share, harm)
        accused += bool(path.max() >= 20)
    assert accused / 4_000 <= 0.05 + 0.012


def test_a_harmful_candidate_is_found() -> None:
    generator, found = np.random.default_rng(3), 0
    for _ in range(200):
        candidate = generator.random(5_000) < SHARE
        harm = (generator.random(5_000) < np.where(candidate, 0.2, 0.02)).astype(np.float64)
        found += bool(LabelTest([(8.0, 1.0)]).extend(candidate, np.full(5_000, SHARE), harm)[-1] >= 1_000)
    assert found == 200


def test_a_pair_wins_or_loses_what_was_staked() -> None:
    test = PairTest([(0.2, 0.5), (0.4, 0.5)])
    test.update(1.0)
    assert test.e_value == pytest.approx((1.2 + 1.4) / 2)
    test.update(-0.5)
    assert test.e_value == pytest.approx((1.2 * 0.9 + 1.4 * 0.8) / 2)


def test_a_better_candidate_is_never_accused_by_pairs() -> None:
    assert PairTest([(0.2, 1.0)]).extend(np.full(10_000, -0.01)).max() < 1


def test_a_wealth_too_large_for_a_float_stays_a_number() -> None:
    assert np.isfinite(PairTest([(0.9, 1.0)]).extend(np.ones(5_000))).all()


def test_a_canary_is_restored_from_plain_json() -> None:
    tests = CanaryTests(CANARY)
    _observe(tests, 30)
    restored = CanaryTests(CANARY, json.loads(json.dumps(tests.state)))
    _observe(tests, 5)
    _observe(restored, 5)
    assert restored.evidence == tests.evidence


def test_harm_that_was_shown_stays_shown() -> None:
    tests = CanaryTests(CANARY)
    for _ in range(3):
        tests.observe("faults", candidate=True, propensity=0.01, harm=1.0)
    assert tests.shown == ("faults",)
    for _ in range(40):
        tests.observe("faults", candidate=False, propensity=0.01, harm=1.0)
    [faults, slow] = tests.evidence
    assert faults.e_value < faults.threshold <= faults.highest
    assert tests.shown == ("faults",)
    assert (faults.units, faults.harmed, slow.units) == (43, 43, 0)


def test_a_shadow_counts_pairs_and_shows_harm() -> None:
    rules = ShadowRules(
        pairs=10, least_pairs=5, metrics={"faults": Watched(alpha=0.01, alternatives=((0.5, 1.0),))}
    )
    tests = ShadowTests(rules)
    for loss in (1.0, 0.0, -1.0, *[1.0] * 14):
        tests.observe("faults", loss)
    [evidence] = tests.evidence
    assert (evidence.units, evidence.harmed) == (17, 15)
    assert tests.shown == ("faults",)
    assert ShadowTests(rules, json.loads(json.dumps(tests.state))).evidence == tests.evidence


def test_the_shipped_tests_err_once_in_a_hundred_together() -> None:
    rules = load_rules()
    assert rules.canary
    assert rules.shadow
    assert rules.canary.alpha == pytest.approx(0.01)
    assert set(rules.canary.metrics) >= {"faults", "slow", "degraded", "unsupported", "disliked"}


def test_rules_that_make_no_test_are_refused() -> None:
    faults = {"alpha": 0.01, "ratio": 2.0, "alternatives": [[2.0, 1.0]]}
    with pytest.raises(ValidationError, match="must be above its ratio 2"):
        CanaryRules.model_validate({**CANARY.model_dump(), "metrics": {"faults": faults}})
    steps = [{"share": 0.2, "units": 5}, {"share": 0.1, "units": 5}]
    with pytest.raises(ValidationError, match="must grow"):
        CanaryRules.model_validate({**CANARY.model_dump(), "steps": steps})
    with pytest.raises(ValidationError, match="below 1"):
        ShadowRules.model_validate({"pairs": 9, "least_pairs": 3, "metrics": {"faults": faults}})


CANARY = CanaryRules(
    steps=(Step(share=0.01, units=10),),
    exposure=100,
    tenant_units=100,
    warm_up_seconds=0,
    settle_seconds=0,
    metrics={
        "faults": Watched(alpha=0.005, alternatives=((5.0, 0.5), (40.0, 0.5))),
        "slow": Watched(alpha=0.005, ratio=1.2, alternatives=((2.0, 1.0),)),
    },
)


def _observe(tests: CanaryTests, units: int) -> None:
    for unit in range(units):
        for metric in ("faults", "slow"):
            tests.observe(metric, candidate=unit % 3 == 0, propensity=0.3, harm=float(unit % 4 == 0))


def _after(candidate: bool, share: float, ratio: float) -> float:
    test = LabelTest([(ratio * 3, 1.0)], ratio=ratio)
    test.update(candidate, share, 1.0)
    return test.e_value


def test_wealth_begins_at_one_however_the_weights_add_up() -> None:
    assert LabelTest([(2.0, 3.0), (4.0, 5.0)]).e_value == pytest.approx(1)
    assert PairTest([(0.25, 3.0), (0.5, 5.0)]).e_value == pytest.approx(1)
