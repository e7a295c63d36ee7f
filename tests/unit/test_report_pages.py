"""The pages of reports and verdicts: what they say first, what they show, and that no text breaks them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import html

from app.changes import Change
from eval.history import history, index_html
from eval.markdown import verdict_markdown
from eval.means import means
from eval.page.changed import changes_html
from eval.page.evaluation import report_html
from eval.page.plots import Bar, forest, scale_of
from eval.page.postmortem import postmortem_html
from eval.page.verdict import verdict_html
from eval.page.words import MOST_WORDS, compared
from eval.postmortem import postmortem
from eval.spread import BINS, spreads
from eval.types import Interval, Outcome, Score
from eval.wording import blocking, headline, next_step, power, sentence
from tests.reports import HOSTILE, hostile_verdict, release, report, trial, verdict

PAGES = {
    "verdict": lambda: verdict_html(verdict()),
    "report": lambda: report_html(report(0.5, lost=1, leaks=("a leak",))),
    "hostile verdict": lambda: verdict_html(hostile_verdict()),
    "hostile report": lambda: report_html(
        report(text=HOSTILE, of=replace(release(), name=HOSTILE), leaks=(HOSTILE,), lost=1)
    ),
    "postmortem": lambda: postmortem_html(postmortem(trial())),
    "hostile postmortem": lambda: postmortem_html(
        postmortem(
            trial(
                timeline=[
                    {"at": HOSTILE, "who": HOSTILE, "what": HOSTILE, "evidence": {HOSTILE: {HOSTILE: 1}}}
                ],
                affected=[{"kind": HOSTILE, "tenant": HOSTILE, "requests": 1}],
                first_request=HOSTILE,
                forced=HOSTILE,
            )
        )
    ),
}
ELEMENTS = re.compile(
    "html|head|meta|title|style|body|main|header|section|article|div|p|span|h[1-4]|ul|li|dl|dt|dd|table|thead|"
    "tbody|tr|th|td|strong|code|pre|del|ins|i|figure|figcaption|details|summary|svg|rect|line|circle|polyline|"
    "text|g"
)
ATTRIBUTES = re.compile(
    "class|dir|lang|scope|role|data-label|charset|name|content|http-equiv|viewbox|[xy][12]?|c[xy]|r|width|"
    "height|points|text-anchor|tabindex"
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_only_our_elements_whatever_its_text_says(page: str) -> None:
    root = _parsed(PAGES[page]())
    assert all(ELEMENTS.fullmatch(element.tag) for element in root.iter())
    assert all(ATTRIBUTES.fullmatch(name) for element in root.iter() for name in element.attrib)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_nothing_from_anywhere(page: str) -> None:
    text = PAGES[page]()
    [style] = re.findall(r"<style>(.*?)</style>", text, flags=re.S)
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src &#x27;none&#x27;" in text


def test_hostile_text_is_shown_as_it_is() -> None:
    [question] = _parsed(verdict_html(hostile_verdict())).xpath("//article/h3")
    assert "<script>alert(1)</script>" in question.text_content()
    assert "\x1b" not in question.text_content()
    assert question.get("dir") == "auto"


def test_the_verdict_and_its_reason_come_first() -> None:
    found = verdict()
    text = _parsed(verdict_html(found)).text_content()
    order = [
        text.index(part) for part in ("FAIL", headline(found), sentence(found), "Worse by more than 0.04.")
    ]
    assert order == sorted(order)
    assert order[-1] < text.index("What changed in the release") < text.index("Gated metrics")


def test_the_sentence_says_what_stands_in_the_way() -> None:
    assert sentence(verdict("failed")) == "1 of 5 checks failed on handbook 2: context_recall."
    assert "could not be decided" in sentence(verdict("no_verdict"))
    assert sentence(verdict("passed")).startswith("All 5 checks passed")
    assert headline(verdict("failed")).endswith("may not replace default (000000000007)")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("passed", ["release judge VERDICT.json", "release shadow", "release canary"]),
        ("failed", ["Mend the release", "release judge VERDICT.json"]),
        ("no_verdict", ["lost its evidence again"]),
    ],
)
def test_every_verdict_says_what_to_do_next(outcome: Outcome, said: list[str]) -> None:
    found = verdict(outcome)
    for text in (_parsed(verdict_html(found)).text_content(), verdict_markdown(found)):
        assert all(each in text for each in said)
        assert ("release canary" in text) is (outcome == "passed")


def test_more_cases_are_advised_only_where_no_loss_was_shown() -> None:
    shown = verdict("failed")
    [failed] = blocking(shown)
    possible = replace(failed, difference=Interval(-0.02, -0.07, 0.03), margin=0.04)
    unclear = replace(shown, checks=tuple(possible if check is failed else check for check in shown.checks))
    assert "More cases narrow the intervals." in next_step(unclear)
    assert "More cases" not in next_step(shown)


def test_a_release_that_was_compared_with_itself_is_not_said_to_have_lost_nothing() -> None:
    found = verdict("passed")
    alone = replace(found, baseline=found.candidate)
    assert "no loss beyond the margins" in sentence(found)
    assert "no loss beyond the margins" not in sentence(alone)
    assert "Compared with itself" in sentence(alone)
    assert "release canary" not in next_step(alone)


def test_the_power_of_the_evaluation_is_said_in_points_of_the_gated_metrics() -> None:
    said = power(verdict().checks)
    assert said
    assert said.startswith("With these 75 cases a loss of 6.2 points in a gated metric would have been seen")
    assert power(verdict().checks[:1]) is None


def test_every_check_is_in_the_table_of_its_role_with_its_interval() -> None:
    root = _parsed(verdict_html(verdict("no_verdict")))
    titles = [title.text_content() for title in root.xpath("//section[h2='Checks']/h3")]
    assert titles == ["Evidence", "Gated metrics", "Guards", "Slices", "Cost"]
    rows = {row.xpath("string(th/strong)"): row for row in root.xpath("//tbody/tr")}
    assert rows["context_recall on language:de"].xpath("string(td[@data-label='difference'])") == "-0.020"
    assert rows["latency_p95"].xpath("string(td[@data-label='ratio'])") == "1.10"
    [undecided] = root.xpath("//tr[th/strong='context_recall']")
    assert undecided.xpath("string(td[@data-label='result'])") == "undecided"
    assert undecided.xpath("string(td[@data-label='cases'])") == "75, 6 lost"
    assert all(len(row.xpath(".//*[local-name()='svg']")) == 1 for row in list(rows.values())[1:])


def test_what_did_not_pass_is_seen_before_many_that_did() -> None:
    found = verdict("passed")
    part = found.checks[3]
    many = tuple(replace(part, slice=f"tag:{number}") for number in range(40))
    bad = replace(part, slice="tag:bad", passed=False, reason="Shown: a loss.")
    root = _parsed(verdict_html(replace(found, outcome="failed", checks=(*many, bad))))
    [folded] = root.xpath("//details[summary='40 passed']")
    assert len(folded.xpath(".//tbody/tr")) == 40
    [shown] = root.xpath("//tbody/tr[not(ancestor::details)]")
    assert shown.xpath("string(th/strong)") == "context_recall on tag:bad"


def test_harm_is_shaded_left_of_a_margin_and_right_of_a_most() -> None:
    loss = Bar(Interval(-0.1, -0.2, 0.0), limit=-0.05)
    ratio = Bar(Interval(1.1, 0.9, 1.3), same=1.0, limit=1.2, more_is_better=False)
    shades = []
    for bar in (loss, ratio):
        [rect] = re.findall(
            r'<rect x="([\d.]+)" y="0" width="([\d.]+)"', forest(bar, scale_of([bar]), "failed")
        )
        shades.append((float(rect[0]), float(rect[0]) + float(rect[1])))
    assert shades[0][0] == 0
    assert shades[1][1] == 240


def test_an_interval_without_an_end_is_drawn_to_the_border() -> None:
    bar = Bar(Interval(1.0, 0.5, float("inf")), same=1.0, limit=1.2, more_is_better=False)
    assert "inf" not in re.sub(r"<title>.*?</title>", "", forest(bar, scale_of([bar]), "passed"))


def test_words_that_went_and_came_are_marked() -> None:
    before, after = compared("Leave is 28 days. [1]", "Leave is 30 days. [2]")
    assert before == "Leave is <del>28 </del>days. <del>[1]</del>"
    assert after == "Leave is <ins>30 </ins>days. <ins>[2]</ins>"


def test_texts_with_little_in_common_are_left_unmarked_and_long_ones_cut() -> None:
    assert compared("one two three", "four five six") == ("one two three", "four five six")
    before, _ = compared("word " * (MOST_WORDS + 5), "word")
    assert "and 5 more words" in before


def test_a_changed_line_of_a_prompt_shows_its_changed_words() -> None:
    old, new = "Keep this.\nBe brief: a few sentences.\n", "Keep this.\nBe brief: ten sentences.\n"
    shown = changes_html([Change("prompts.answer", old, new), Change("search.limit", "8", None)])
    assert '<span class="gone">− Be brief: <del>a few </del>sentences.</span>' in shown
    assert '<span class="came">+ Be brief: <ins>ten </ins>sentences.</span>' in shown
    assert "<del>8</del> → " in shown
    assert "(absent)" in shown


def test_bins_hold_every_value_and_compare_on_one_scale() -> None:
    found = {each.metric: each for each in spreads(report(), report(0.5, lost=2))}
    latency = found["latency_seconds"]
    assert latency.low == 0.0
    assert latency.high == pytest.approx(1.2)
    assert (sum(latency.baseline), sum(latency.candidate)) == (12, 10)
    recall = found["context_recall"]
    assert (recall.low, recall.high) == (0.0, 1.0)
    assert recall.baseline[BINS - 1] == 12
    assert recall.candidate[BINS // 2] == 10


def test_a_report_that_lost_cases_says_so_first() -> None:
    text = _parsed(report_html(report(lost=2))).text_content()
    assert text.index("INCOMPLETE") < text.index("13 cases were run, 2 of them with a failed request.")
    assert "2 × chat: The request took too long." in text


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    """Of two documents, one wholly right and one wholly wrong, nothing is known."""
    whole = report()
    results = [
        replace(result, scores={"context_recall": Score(float(index < 4))})
        for index, result in enumerate(whole.results[:8])
    ]
    aggregate, interval = means(replace(whole, results=tuple(results)))["context_recall"]
    assert aggregate.mean == 0.5
    assert interval.low == 0.0
    assert interval.high <= 1.0


def test_an_empty_folder_still_has_a_page(tmp_path: Path) -> None:
    assert "0 runs, 0 verdicts" in index_html(history(tmp_path), tmp_path)


def _parsed(text: str) -> Any:
    return html.document_fromstring(text)
