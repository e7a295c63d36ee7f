"""Reports of runs after an erasure: the answers that were made from an erased document lose their text.

A report keeps ids of passages, measures, questions and answers. Whose document was erased is known by the
receipt, which holds salted hashes of ids. What is left is what a verdict counts: scores, times, ids of cases.
Pages that were rendered from a report are removed: they can be rendered again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
    """How many answers lost their text, in how many reports."""

    answers: int
    reports: int


def forget(folder: Path, receipts: Sequence[Receipt]) -> Forgotten:
    """Go through every report below the folder. Raises `ReportInvalid` for one that cannot be rewritten."""
    counts = [_forget(path, receipts) for path in sorted(folder.rglob("*.json"))]
    return Forgotten(sum(counts), sum(count > 0 for count in counts))


def _forget(path: Path, receipts: Sequence[Receipt]) -> int:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0  # No report.
    if not isinstance(body, dict) or body.get("kind") != "report":
        return 0
    try:
        touched = [one for one in body["results"] if _erased(set(_documents(one)), receipts)]
        for one in touched:
            _blank(one)
    except (KeyError, TypeError) as error:
        raise ReportInvalid(f"{path} is not an evaluation report ({error!r}).") from None
    if touched:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(dump(body), encoding="utf-8")
        partial.replace(path)
        for suffix in RENDERED:
            path.with_suffix(suffix).unlink(missing_ok=True)
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
