"""Reports and verdicts after an erasure: answers that were made from an erased document lose their text.

A report keeps ids of passages, measures, questions and answers. Whose document was erased is known by the
receipt, which holds salted hashes of ids. What is left is what a verdict counts: scores, times, ids of cases.
Pages that were rendered from a report are removed: they can be rendered again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report import dump
from eval.types import ReportInvalid
from ingestion.receipts import Receipt, reference

RENDERED = (".html", ".md", ".xml")
GONE = ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many answers lost their text, in how many reports and verdicts."""

    answers: int
    reports: int


def forget(folder: Path, receipts: Sequence[Receipt]) -> Forgotten:
    """Go through every report below the folder, and every verdict on one of them. Raises `ReportInvalid` for
    one that cannot be rewritten."""
    found = [(path, body) for path in sorted(folder.rglob("*.json")) if (body := _body(path))]
    erased: dict[str, set[str]] = {}
    counts = []
    for path, body in found:
        if body["kind"] == "report":
            counts.append(_rewrite(path, body, lambda body: _forget(body, receipts, erased)))
    for path, body in found:
        if body["kind"] == "verdict":
            counts.append(_rewrite(path, body, lambda body: _forget_compared(body, erased)))
    return Forgotten(sum(counts), sum(count > 0 for count in counts))


def _body(path: Path) -> dict[str, Any] | None:
    """A report or a verdict; None for another file."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportInvalid(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError:
        return None
    return body if isinstance(body, dict) and body.get("kind") in ("report", "verdict") else None


def _rewrite(path: Path, body: dict[str, Any], change: Callable[[dict[str, Any]], int]) -> int:
    """Write down what is left of it, if anything was taken out."""
    try:
        count = change(body)
    except (KeyError, TypeError) as error:
        raise ReportInvalid(f"{path} is not an evaluation report ({error!r}).") from None
    if count:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(dump(body), encoding="utf-8")
        partial.replace(path)
        for suffix in RENDERED:
            path.with_suffix(suffix).unlink(missing_ok=True)
    return count


def _forget(body: dict[str, Any], receipts: Sequence[Receipt], erased: dict[str, set[str]]) -> int:
    """`erased` learns which cases of the data set those were."""
    touched = [one for one in body["results"] if _erased(set(_documents(one)), receipts)]
    for one in touched:
        _blank(one)
    cases = erased.setdefault(body["dataset"]["fingerprint"], set())
    cases.update(one["case"]["id"] for one in touched)
    return len(touched)


def _forget_compared(body: dict[str, Any], erased: dict[str, set[str]]) -> int:
    """A verdict names no documents: whose its answers are is known by the reports that it compares."""
    cases = erased.get(body["dataset"]["fingerprint"], set())
    touched = [one for one in body["regressions"] if one["case_id"] in cases]
    for one in touched:
        one.update(question=GONE, baseline_answer=GONE, candidate_answer=GONE)
    return len(touched)


def _documents(result: dict[str, Any]) -> Iterator[str]:
    sample = result["sample"]
    passages = list(sample["hits"] or [])
    for answer in (sample["reply"], sample["summary"]):
        passages += [*answer["citations"], *answer.get("sources", [])] if answer else []
    yield from (one["document_id"] for one in [*passages, *result["case"]["gold"]])


def _erased(documents: set[str], receipts: Sequence[Receipt]) -> bool:
    return any(
        reference(receipt.body["salt"], receipt.tenant, document) in named
        for receipt in receipts
        for named in [{one["reference"] for one in receipt.body["documents"]}]
        for document in documents
    )


def _blank(result: dict[str, Any]) -> None:
    """The case keeps its id, its gold the id of a passage; neither keeps what was written there."""
    case, sample = result["case"], result["sample"]
    case["question"] = GONE
    case["reference"] = None if case["reference"] is None else GONE
    for gold in case["gold"]:
        gold["quote"] = None
    for answer in (sample["reply"], sample["summary"]):
        if answer:
            answer["text"] = GONE
