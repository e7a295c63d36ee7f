"""Turns question sets in SQuAD's form into data sets of ours: `corpus.jsonl` and `qa.jsonl` in, a folder out.

The gold quote is the sentence that holds the answer, the reference the answer itself. Questions without an
answer (SQuAD 2.0) become unanswerable cases. The choice is spread evenly over the set, the same each time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.evidence import sentence_spans
from eval.cases import document_id, load_folder, rows
from eval.types import Dataset, DatasetInvalid
from llm.language import LANGUAGES

UNANSWERABLE = 5
"""One in so many cases has no answer, where the set has such questions."""


def import_squad(source: Path, out: Path, *, questions: int, language: str, licence: str) -> Dataset:
    """Writes a data set of at most `questions` cases into the folder `out`, and loads it. Raises
    `DatasetInvalid` for a source in another form."""
    try:
        texts = {row["_id"]: row["text"] for row in rows(source / "corpus.jsonl")}
        cases = [_case(row, texts, language) for row in _chosen(list(rows(source / "qa.jsonl")), questions)]
    except (KeyError, IndexError, ValueError) as error:
        raise DatasetInvalid(f"{source} is not in SQuAD's form: {error!r}.") from None
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "corpus.jsonl", out / "corpus.jsonl")
    lines = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    (out / "cases.jsonl").write_text(lines, encoding="utf-8")
    about = {"name": out.name, "version": "1", "licence": licence}
    _write_about(out, about)
    _write_about(out, {**about, "fingerprint": load_folder(out).ref.fingerprint})
    return load_folder(out)


def _chosen(asked: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """In the order of the set."""
    without = [row for row in asked if row["is_impossible"]]
    some = _spread(without, most // UNANSWERABLE)
    chosen = [*_spread([row for row in asked if not row["is_impossible"]], most - len(some)), *some]
    wanted = {row["id"] for row in chosen}
    return [row for row in asked if row["id"] in wanted]


def _spread(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    most = min(most, len(rows))
    return [rows[index * len(rows) // most] for index in range(most)]


def _case(row: dict[str, Any], texts: dict[str, str], language: str) -> dict[str, Any]:
    case = {"id": row["id"], "question": row["question"], "language": language}
    if row["is_impossible"]:
        nothing = LANGUAGES[language if language in LANGUAGES else "en"].not_found
        return {**case, "tags": ["unanswerable"], "gold": [], "reference": nothing}
    text, at = texts[row["context_id"]], row["answer_start"][0]
    quote = _sentence(text, at, at + len(row["answers"][0]))
    gold = [{"document_id": document_id(row["context_id"]), "quote": quote}]
    return {**case, "tags": [], "gold": gold, "reference": row["answers"][0]}


def _sentence(text: str, start: int, end: int) -> str:
    """Those sentences of the text in which the characters from `start` to `end` lie."""
    held = [span for span in sentence_spans(text) if span.start < end and span.end > start]
    return text[held[0].start : held[-1].end]


def _write_about(folder: Path, about: dict[str, str]) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in about.items()]
    text = "\n".join([*lines, "", "[corpus]", 'file = "corpus.jsonl"', ""])
    (folder / "dataset.toml").write_text(text, encoding="utf-8")
