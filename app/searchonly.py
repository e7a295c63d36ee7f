"""What an answer is when no model can give one: the sentences of the sources that are nearest to the
question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from app import evidence
from app.evidence import Statement
from llm.language import not_found, only_passages
from retrieval.types import Chunk, Hit

NAME = "none"
"""Stands where a model's name does."""
MOST = 3
LONGEST = 400
_NUMBERS = re.compile(r"\[(\s*\d[\d\s,]*)\]")


def listed(question: str, hits: Sequence[Hit]) -> str:
    """An introduction in the question's language and, of the best passages, the sentences nearest to the
    question, each with its marker. `hits` are in prompt order."""
    best = sorted(range(len(hits)), key=lambda at: -hits[at].score)[:MOST]
    if not best:
        return not_found(question)
    lines = [f"- {_nearest(question, hits[at].chunk)} [{at + 1}]" for at in best]
    return "\n".join([only_passages(question), "", *lines])


def _nearest(question: str, chunk: Chunk) -> str:
    window = evidence.compare(Statement(question), [evidence.read(chunk.text)]).window
    # A number in brackets would read as a marker of ours.
    text = _NUMBERS.sub(r"(\1)", " ".join(window.statement.text.split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"
