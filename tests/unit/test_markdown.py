"""Markdown says the same as the page, and nothing that it quotes can redraw it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lxml import html
from markdown_it import MarkdownIt

from eval.markdown import code, plain, report_markdown, verdict_markdown
from eval.postmortem import postmortem, postmortem_markdown
from tests.reports import HOSTILE, hostile_verdict, release, report, trial, verdict


def test_the_verdict_comes_first_in_each_of_its_forms() -> None:
    assert verdict_markdown(verdict("failed")).startswith("# FAIL: plain (`000000000005`)")
    assert verdict_markdown(verdict("passed")).startswith("# PASS: plain")
    assert verdict_markdown(verdict("no_verdict")).startswith("# NO VERDICT: plain")


def test_checks_are_listed_by_role_with_what_they_rest_on() -> None:
    text = verdict_markdown(verdict("no_verdict"))
    assert "| context_recall | **undecided** | 1.000 | 0.850 | -0.150 | -0.250 to -0.050 |" in text
    assert "| context_recall on language:de | pass |" in text
    assert "| × 1.100 | × 0.900 to 1.300 |" in text
    assert text.index("**Gated metrics.**") < text.index("**Guards.**") < text.index("**Cost.**")
    assert "a loss of 6.2 points" in text
    assert "- candidate: 13 cases, 0 lost, 2026-06-02T12:00:00+00:00" in text


def test_leaks_and_failures_are_in_the_report() -> None:
    text = report_markdown(report(lost=3, leaks=("prompts/answer.md holds case-03.",)))
    assert "- prompts/answer.md holds case-03." in text
    assert "- 3 times chat: The request took too long." in text


def test_hostile_text_makes_no_elements() -> None:
    found = report(text=HOSTILE, of=replace(release(), name=HOSTILE), leaks=(HOSTILE,), lost=1)
    hostile = trial(affected=[{"kind": HOSTILE, "tenant": HOSTILE, "requests": 1}], last_request=HOSTILE)
    texts = (
        verdict_markdown(hostile_verdict()),
        report_markdown(found),
        postmortem_markdown(postmortem(hostile)),
    )
    for text in texts:
        root: Any = html.fromstring(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
        assert not root.xpath("//script | //img | //a | //b | //svg | //s")
        assert len(root.xpath("//h1")) == 1
        assert "\u202e" not in text


def test_a_code_span_holds_whatever_backquotes_it_is_given() -> None:
    assert code("a") == "`a`"
    rendered = MarkdownIt("commonmark").renderInline(code("a `` b <i>"))
    assert rendered == "<code>a `` b &lt;i&gt;</code>"


def test_names_with_underscores_stay_readable() -> None:
    assert plain("context_recall") == "context_recall"
    assert MarkdownIt("commonmark").renderInline(plain("_a_ __b__ *c* ~~d~~")) == "_a_ __b__ *c* ~~d~~"
