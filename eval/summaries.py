"""Measures summaries against those that people wrote: SQuALITY's stories and QMSum's meetings.

Coverage is that of the product (`app.coverage`); ROUGE is the best F1 over a text's references (Lin 2004); a
summary keeps to its length when it has 0.8 to 1.2 times the words that were asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import deadline
from app.types import Summary, SummaryRequest
from eval.inprocess import EVERYTHING, InProcess
from eval.types import EvalError

PATIENCE = 600.0
LENGTH = 0.2
"""How far from the words asked for a summary may be, as a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A text, what to summarize of it (None: all), and what people wrote."""

    text: str
    focus: str | None
    references: tuple[str, ...]

    @property
    def words(self) -> int:
        """The length asked for: that of the references, in tens."""
        mean = sum(len(one.split()) for one in self.references) / len(self.references)
        return max(50, round(mean / 10) * 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over the summaries; `kept_length` and `supported` are shares."""

    dataset: str
    summaries: int
    coverage: float
    sections_cited: float
    supported: float
    rouge1: float
    rouge2: float
    rouge_l: float
    kept_length: float


def squality(file: Path, most: int) -> list[Task]:
    """Stories with questions about them; the first question asks for the plot."""
    return [
        Task(
            text=row["document"],
            focus=None if number == 0 else question["question_text"],
            references=tuple(one["response_text"] for one in question["responses"]),
        )
        for row in _lines(file)[:most]
        for number, question in enumerate(row["questions"][:2])
    ]


def qmsum(file: Path, most: int) -> list[Task]:
    """Transcripts of meetings with one general and one specific question."""
    found = []
    for row in _lines(file)[:most]:
        text = "\n\n".join(f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"])
        general, specific = row["general_query_list"][:1], row["specific_query_list"][:1]
        found += [Task(text=text, focus=None, references=(one["answer"],)) for one in general]
        found += [Task(text=text, focus=one["query"], references=(one["answer"],)) for one in specific]
    return found


async def measured(
    dataset: str, house: InProcess, tasks: Sequence[Task], progress: Callable[[str, int, int], None]
) -> Figures:
    rows: list[tuple[Task, Summary]] = []
    for done, task in enumerate(tasks, start=1):
        rows.append((task, await _summary(house, task)))
        progress("summarizing", done, len(tasks))
    rouge = _rouge()
    scores = [rouge(task.references, one.text) for task, one in rows]
    support = [verdict for _, one in rows for verdict in one.support]
    return Figures(
        dataset=dataset,
        summaries=len(rows),
        coverage=_mean([one.coverage for _, one in rows]),
        sections_cited=_mean([one.sections_cited for _, one in rows]),
        supported=_mean([float(verdict.verdict == "supported") for verdict in support]),
        rouge1=_mean([score["rouge1"] for score in scores]),
        rouge2=_mean([score["rouge2"] for score in scores]),
        rouge_l=_mean([score["rougeL"] for score in scores]),
        kept_length=_mean([float(_keeps(task, one)) for task, one in rows]),
    )


def markdown(rows: Sequence[Figures]) -> str:
    head = (
        "| set | summaries | coverage | sections cited | sentences supported | ROUGE-1 | ROUGE-2 | ROUGE-L "
        "| length kept |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| {row.dataset} | {row.summaries} | {row.coverage:.3f} | {row.sections_cited:.3f} "
        f"| {row.supported:.3f} | {row.rouge1:.3f} | {row.rouge2:.3f} | {row.rouge_l:.3f} "
        f"| {row.kept_length:.3f} |\n"
        for row in rows
    )


async def _summary(house: InProcess, task: Task) -> Summary:
    request = SummaryRequest(
        where=EVERYTHING,
        deadline=deadline.after(PATIENCE),
        text=task.text,
        focus=task.focus,
        max_words=task.words,
        cache="off",
    )
    async with aclosing(house.summarizer.summarize(request)) as events:
        async for event in events:
            if isinstance(event, Summary):
                return event
    raise EvalError("A summary ended before it was complete.")


def _rouge() -> Callable[[Sequence[str], str], dict[str, float]]:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=True)

    def best(references: Sequence[str], said: str) -> dict[str, float]:
        scores = [scorer.score(reference, said) for reference in references]
        return {name: max(score[name].fmeasure for score in scores) for name in names}

    return best


def _keeps(task: Task, summary: Summary) -> bool:
    words = len([word for word in summary.text.split() if not word.startswith("[")])
    return abs(words - task.words) <= LENGTH * task.words


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise EvalError(f"Cannot read {file}: {error}") from None
