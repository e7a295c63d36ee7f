"""Measures whether an answer is declined where the documents do not hold it, on SQuAD 2.0.

Half of its questions were written by people to look answerable from a paragraph and not to be. Precision
and recall are of declining: of the declined questions, how many had no answer; of those without one, how
many were declined. Questions are of every second article only: on those of the others `llm.mismatch` was
fitted.

A set in SQuAD's form that has no such questions, as XQuAD in other languages, is made one: every second of
its paragraphs is left out, and questions to those have no answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import deadline
from app.types import Answer, Question
from eval.inprocess import EVERYTHING, InProcess, Text
from eval.types import EvalError
from llm.types import Message

PATIENCE = 120.0
_MARKERS = re.compile(r"\s*\[\d+\]")
_NOISE = re.compile(r"\b(?:a|an|the)\b|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`answers` are the known ones, none where the paragraph does not hold it; `first` is the first sentence
    of what was `said`."""

    question: str
    answers: tuple[str, ...]
    said: str
    declined: bool
    first: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """`contained` is the share of answerable questions whose reply holds a known answer, `first` that of
    those whose first sentence does, `exact` that of replies that are one, `f1` the mean overlap of words with
    the best known answer."""

    questions: int
    unanswerable: int
    precision: float
    recall: float
    answered: float
    contained: float
    first: float
    exact: float
    f1: float


def paragraphs(folder: Path) -> list[Text]:
    missing = _left_out(folder)
    return [
        Text(row["_id"], row["title"], row["text"])
        for row in _lines(folder / "corpus.jsonl")
        if row["_id"] not in missing
    ]


def questions(folder: Path, most: int) -> list[tuple[str, tuple[str, ...]]]:
    """An even sample of the answerable and of the unanswerable questions to held-out articles, half of
    each."""
    missing = _left_out(folder)
    rows = [row for row in _lines(folder / "qa.jsonl") if held_out(row["context_id"])]
    known = [
        (
            row["question"],
            () if row["is_impossible"] or row["context_id"] in missing else tuple(row["answers"]),
        )
        for row in rows
    ]
    halves = [[one for one in known if bool(one[1]) is kind] for kind in (True, False)]
    return [one for half in halves for one in half[:: max(1, len(half) // max(1, most // 2))][: most // 2]]


def _left_out(folder: Path) -> frozenset[str]:
    """The paragraphs whose questions have no answer for that, where no others have none."""
    if any(row["is_impossible"] for row in _lines(folder / "qa.jsonl")):
        return frozenset()
    return frozenset(row["_id"] for row in _lines(folder / "corpus.jsonl")[::2])


def held_out(paragraph: str) -> bool:
    """Whether nothing was fitted on the article of this paragraph, whose id begins with the article's
    number."""
    return int(paragraph.partition("-")[0]) % 2 == 1


async def asked(
    house: InProcess,
    wanted: Sequence[tuple[str, tuple[str, ...]]],
    progress: Callable[[str, int, int], None],
) -> list[Asked]:
    found = []
    for done, (question, answers) in enumerate(wanted, start=1):
        answer = await _answer(house, question)
        said, first = _MARKERS.sub("", answer.text), _MARKERS.split(answer.text)[0]
        found.append(
            Asked(question=question, answers=answers, said=said, declined=not answer.answered, first=first)
        )
        progress("asking", done, len(wanted))
    return found


def figures(found: Sequence[Asked]) -> Figures:
    unanswerable = [one for one in found if not one.answers]
    answerable = [one for one in found if one.answers]
    declined = [one for one in found if one.declined]
    right = sum(one.declined for one in unanswerable)
    return Figures(
        questions=len(found),
        unanswerable=len(unanswerable),
        precision=_share(right, len(declined)),
        recall=_share(right, len(unanswerable)),
        answered=_share(sum(not one.declined for one in answerable), len(answerable)),
        contained=_share(sum(_contains(one, one.said) for one in answerable), len(answerable)),
        first=_share(sum(_contains(one, one.first) for one in answerable), len(answerable)),
        exact=_share(sum(map(_exact, answerable)), len(answerable)),
        f1=_share(sum(map(_f1, answerable)), len(answerable)),
    )


def markdown(row: Figures) -> str:
    return (
        "| questions (unanswerable) | declined: precision | recall | answerable: answered | holds the answer "
        "| in its first sentence | exact | F1 |\n|---|---|---|---|---|---|---|---|\n"
        f"| {row.questions} ({row.unanswerable}) | {row.precision:.3f} | {row.recall:.3f} "
        f"| {row.answered:.3f} | {row.contained:.3f} | {row.first:.3f} | {row.exact:.3f} | {row.f1:.3f} |\n"
    )


async def _answer(house: InProcess, question: str) -> Answer:
    wanted = Question(
        messages=(Message("user", question),),
        where=EVERYTHING,
        deadline=deadline.after(PATIENCE),
        cache="off",
    )
    async with aclosing(house.chat.ask(wanted)) as events:
        async for event in events:
            if isinstance(event, Answer):
                return event
    raise EvalError("An answer ended before it was complete.")


def _plain(text: str) -> list[str]:
    """As SQuAD compares: lower case, without articles and punctuation."""
    return _NOISE.sub(" ", text.lower()).split()


def _contains(one: Asked, said: str) -> bool:
    said = f" {' '.join(_plain(said))} "
    return not one.declined and any(f" {' '.join(_plain(answer))} " in said for answer in one.answers)


def _exact(one: Asked) -> bool:
    return any(_plain(one.said) == _plain(answer) for answer in one.answers)


def _f1(one: Asked) -> float:
    if one.declined:
        return 0.0
    return max(_overlap(_plain(one.said), _plain(answer)) for answer in one.answers)


def _overlap(said: list[str], answer: list[str]) -> float:
    common = sum(min(said.count(word), answer.count(word)) for word in set(answer))
    return 2 * common / (len(said) + len(answer)) if common else 0.0


def _share(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise EvalError(f"Cannot read {file}: {error}") from None
