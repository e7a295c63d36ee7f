"""A verdict as JUnit XML, so that a continuous integration shows each check as a test.

A suite for each role, a test case for each check: a failed check is a failure with its reason, one that could
not be decided is an error. The layout is that of Jenkins' JUnit schema, which GitLab, GitHub's reporters and
others read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lxml import etree

from eval.types import Check, Role, Verdict
from eval.wording import ROLES, check_name, headline, sentence

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def verdict_junit(verdict: Verdict) -> str:
    suites = etree.Element("testsuites", {"name": _text(headline(verdict)), **_counts(verdict.checks)})
    for role in ROLES:
        checks = [check for check in verdict.checks if check.role == role]
        if checks:
            suites.append(_suite(role, checks, verdict))
    body = etree.tostring(suites, pretty_print=True, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'


def _suite(role: Role, checks: Sequence[Check], verdict: Verdict) -> etree._Element:
    suite = etree.Element("testsuite", {"name": f"plumbline.{role}", **_counts(checks)})
    properties = etree.SubElement(suite, "properties")
    for name, value in _facts(verdict).items():
        etree.SubElement(properties, "property", name=name, value=_text(value))
    for check in checks:
        suite.append(_case(check, verdict))
    return suite


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    undecided = sum(check.undecided for check in checks)
    failed = sum(not check.passed for check in checks) - undecided
    return {"tests": str(len(checks)), "failures": str(failed), "errors": str(undecided), "time": "0"}


def _facts(verdict: Verdict) -> dict[str, str]:
    dataset = verdict.dataset
    return {
        "verdict": sentence(verdict),
        "candidate": verdict.candidate.id,
        "baseline": verdict.baseline.id,
        "dataset": f"{dataset.name} {dataset.version}",
        "dataset.fingerprint": dataset.fingerprint,
    }


def _case(check: Check, verdict: Verdict) -> etree._Element:
    classname = f"plumbline.{verdict.dataset.name}.{check.role}"
    case = etree.Element("testcase", classname=_text(classname), name=_text(check_name(check)), time="0")
    if check.undecided:
        _problem(case, "error", check)
    elif not check.passed:
        _problem(case, "failure", check)
    else:
        etree.SubElement(case, "system-out").text = _numbers(check)
    return case


def _problem(case: etree._Element, kind: str, check: Check) -> None:
    found = etree.SubElement(case, kind, message=_text(check.reason), type=check.role)
    found.text = _numbers(check)


def _numbers(check: Check) -> str:
    lines = [check.reason]
    if check.baseline is not None and check.candidate is not None:
        lines.append(f"baseline {check.baseline:.4f}, candidate {check.candidate:.4f}")
    if check.difference is not None:
        low, high = check.difference.low, check.difference.high
        lines.append(f"difference {check.difference.mean:+.4f} ({low:+.4f} to {high:+.4f})")
    if check.ratio is not None:
        lines.append(f"ratio {check.ratio.mean:.4f} ({check.ratio.low:.4f} to {check.ratio.high:.4f})")
    if check.margin is not None:
        lines.append(f"margin {check.margin:g}")
    lines.append(f"{check.cases} cases, {check.lost} lost")
    return _text("\n".join(lines))


def _text(value: str) -> str:
    """Without the characters that XML 1.0 cannot hold at all."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
