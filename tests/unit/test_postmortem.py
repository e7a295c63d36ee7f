"""The draft of a post-mortem has what the records know, and leaves open what only people do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from eval.page.postmortem import postmortem_html
from eval.postmortem import courses, impact, postmortem, postmortem_markdown, questions
from eval.types import ReportInvalid
from tests.reports import trial


def test_the_impact_is_counted_from_the_records() -> None:
    found = postmortem(trial())
    assert (found.requests, found.tenants, found.lasted) == (530, 2, timedelta(minutes=21, seconds=30))
    assert impact(found) == (
        "For 21 min 30 s the release served at most 5% of conversations: 530 requests (518 chat, 12 summary) "
        "of 2 tenants. Then default (000000000007) took all of them again."
    )


def test_a_shadow_reached_no_reader() -> None:
    found = postmortem(trial(kind="shadow", affected=[]))
    assert impact(found).startswith("No reader saw an answer of the release: for 21 min 30 s")
    assert postmortem_markdown(found).startswith("# Failed shadow of plain")


def test_a_release_that_was_forced_is_told_as_such_and_no_evaluation_is_blamed() -> None:
    found = postmortem(trial(forced="it was urgent"))
    for text in (postmortem_markdown(found), postmortem_html(found)):
        assert "It was tried by force, without a passed evaluation: it was urgent" in text
        assert "Why was it tried without a passed evaluation?" in text
        assert "Why did the evaluation before the trial not show this?" not in text


def test_a_single_tenant_is_one() -> None:
    found = postmortem(trial(affected=[{"kind": "chat", "tenant": "9f1c", "requests": 3}]))
    assert "3 requests (3 chat) of 1 tenant. " in impact(found)


def test_the_test_that_decided_comes_first_with_when_it_crossed() -> None:
    faults, slow = courses(postmortem(trial()))
    assert (faults.metric, faults.crossed, faults.highest) == ("faults", "2026-06-01T12:21:00+00:00", 300.0)
    assert (slow.metric, slow.crossed) == ("slow", None)


def test_the_draft_has_every_section_and_what_was_rolled_back() -> None:
    found = postmortem(trial())
    text = postmortem_markdown(found)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Impact",
        "## Timeline",
        "## Evidence",
        "## What was rolled back",
        "## Affected requests",
        "## Open questions",
        "## Actions",
    ]
    assert "+Be thorough: a few sentences." in text
    assert "| faults | 300 | 250 | 2026-06-01T12:21:00+00:00 |" in text
    assert "From `req-1` to `req-530`." in text
    assert all(question in text for question in questions(found))


def test_the_page_draws_the_evidence_against_its_threshold() -> None:
    text = postmortem_html(postmortem(trial()))
    assert text.count("<polyline") == 2
    assert "threshold 250" in text
    assert ">ROLLED BACK<" in text
    assert "crossed 2026-06-01 12:21:00" in text


def test_a_trial_without_evidence_or_requests_still_has_a_draft() -> None:
    found = postmortem(trial(evidence=[], affected=[], timeline=[], steps=[]))
    assert "0 requests (none) of 0 tenants" in postmortem_markdown(found)
    assert "Rollback of plain" in postmortem_html(found)


def test_what_a_newer_service_says_besides_is_passed_over() -> None:
    assert postmortem(trial(region="eu")) == postmortem(trial())


@pytest.mark.parametrize(
    "changed",
    [{"decision": None}, {"started_at": "yesterday"}, {"started_at": "2026-06-01T12:00:00"}, {"steps": [1]}],
)
def test_what_is_no_record_of_a_trial_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ReportInvalid, match="not the record of a trial"):
        postmortem(trial(**changed))
