"""The forms that a report or a verdict is written in, and the files that hold them beside each other."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from eval.junit import verdict_junit
from eval.markdown import report_markdown, verdict_markdown
from eval.outputs import write_beside
from eval.page.evaluation import report_html
from eval.page.verdict import verdict_html
from eval.report import dump, report_json, verdict_json
from eval.types import Report, ReportInvalid, Verdict


class Form(StrEnum):
    json = "json"
    markdown = "markdown"
    html = "html"
    junit = "junit"

    @property
    def suffix(self) -> str:
        return {"json": ".json", "markdown": ".md", "html": ".html", "junit": ".xml"}[self.value]


def rendered(found: Report | Verdict, form: Form) -> str:
    """Raises `ReportInvalid` where there is no such form of it."""
    if isinstance(found, Verdict):
        return _verdict(found, form)
    if form is Form.junit:
        raise ReportInvalid("A report passes no judgement: JUnit XML is a form of verdicts.")
    return _report(found, form)


def write(found: Report | Verdict, out: Path) -> list[Path]:
    """Every form of it beside `out`, with its own suffix each. Raises `CannotWrite`."""
    forms = [form for form in Form if isinstance(found, Verdict) or form is not Form.junit]
    return write_beside(out, {form.suffix: rendered(found, form) for form in forms})


def _verdict(verdict: Verdict, form: Form) -> str:
    match form:
        case Form.json:
            return dump(verdict_json(verdict))
        case Form.markdown:
            return verdict_markdown(verdict)
        case Form.html:
            return verdict_html(verdict)
        case Form.junit:
            return verdict_junit(verdict)


def _report(report: Report, form: Form) -> str:
    match form:
        case Form.json:
            return dump(report_json(report))
        case Form.html:
            return report_html(report)
        case _:
            return report_markdown(report)
