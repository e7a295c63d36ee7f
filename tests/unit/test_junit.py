"""A verdict as JUnit XML: what a continuous integration counts is what the gate decided."""

from __future__ import annotations

from lxml import etree

from eval.junit import verdict_junit
from eval.types import Verdict
from tests.reports import hostile_verdict, verdict


def test_each_check_is_a_test_in_the_suite_of_its_role() -> None:
    root = _parsed(verdict("failed"))
    assert [suite.get("name") for suite in root] == [
        "plumbline.evidence",
        "plumbline.gated",
        "plumbline.guard",
        "plumbline.slice",
        "plumbline.cost",
    ]
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["5", "1", "0"]
    assert [case.get("name") for case in root.iter("testcase")][3] == "context_recall on language:de"


def test_a_failed_check_fails_with_its_reason() -> None:
    [failure] = _parsed(verdict("failed")).iter("failure")
    assert failure.get("message") == "Worse by more than 0.04."
    assert "difference -0.1500 (-0.2500 to -0.0500)" in (failure.text or "")


def test_an_undecided_check_is_an_error_and_no_failure() -> None:
    root = _parsed(verdict("no_verdict"))
    [error] = root.iter("error")
    assert error.get("message") == "The judge gave no value for 6 of its 75 cases."
    assert (root.get("errors"), root.get("failures")) == ("1", "0")


def test_a_passed_verdict_has_neither() -> None:
    assert not list(_parsed(verdict("passed")).iter("failure", "error"))


def test_hostile_text_is_text() -> None:
    root = _parsed(hostile_verdict())
    [failure] = root.iter("failure")
    assert "<script>alert(1)</script>" in failure.get("message", "")
    assert not list(root.iter("script", "img"))


def _parsed(found: Verdict) -> etree._Element:
    return etree.fromstring(verdict_junit(found).encode())
