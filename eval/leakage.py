"""Whether evaluation cases leaked: into the prompts of the release, or into what it searches.

A release whose prompt holds a case's question or reference has seen the test. So has an index that holds a
question outside the gold documents, be it in the corpus or only found by searching the running instance.
Short texts occur by chance and are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from eval.types import Case, CaseResult
from llm.language import declined

RUN = 8
"""Words in a row that two texts do not share by chance."""
ALIKE = 0.5
"""Share of a text's runs of words from which another nearly holds it."""
LEAST = 5
"""Words of a question that does not occur by chance."""
_WORD = re.compile(r"[^\W_]+")

TextOf = Callable[[str], str]


def leaks(results: Sequence[CaseResult], canonical: str, texts: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each leak. `canonical` is the release with its prompts, `texts` the documents of the
    corpus by their ids."""
    prompts = Text(canonical)
    corpus = {name: Text(text) for name, text in texts.items()}
    together = Text(" ".join(text.line for text in corpus.values()))
    return tuple(
        leak
        for result in results
        for leak in (
            *_in_prompts(result.case, prompts),
            *_in_corpus(result.case, corpus, together),
            *_in_hits(result),
        )
    )


class Text:
    """A text as its words, lower case, on one line with spaces around it."""

    def __init__(self, text: str) -> None:
        self.words = tuple(_WORD.findall(text.casefold()))
        self.line = f" {' '.join(self.words)} "
        self._runs: frozenset[tuple[str, ...]] | None = None

    @property
    def runs(self) -> frozenset[tuple[str, ...]]:
        if self._runs is None:
            shifted = (self.words[start:] for start in range(RUN))
            self._runs = frozenset(zip(*shifted, strict=False))
        return self._runs

    def holds(self, other: Text) -> bool:
        return other.line in self.line

    def nearly_holds(self, other: Text) -> bool:
        return bool(other.runs) and len(other.runs & self.runs) >= ALIKE * len(other.runs)


def _in_prompts(case: Case, prompts: Text) -> Iterator[str]:
    for kind, text in _texts(case):
        if prompts.holds(text):
            yield f"The release holds the {kind} of case {case.id}."
        elif prompts.nearly_holds(text):
            yield f"The release nearly holds the {kind} of case {case.id}."


def _in_corpus(case: Case, corpus: Mapping[str, Text], together: Text) -> Iterator[str]:
    gold = {one.document_id for one in case.gold}
    for kind, text in _texts(case):
        if together.holds(text):
            for name, document in corpus.items():
                if name not in gold and document.holds(text):
                    yield f"Document {name} holds the {kind} of case {case.id}."


def _in_hits(result: CaseResult) -> Iterator[str]:
    case = result.case
    question, gold = Text(case.question), {one.document_id for one in case.gold}
    if len(question.words) >= LEAST:
        found = [hit.document_id for hit in result.sample.hits or () if Text(hit.text).holds(question)]
        for name in dict.fromkeys(found):
            if name not in gold:
                yield f"A search for the question of case {case.id} finds it, in {name}."


def _texts(case: Case) -> Iterator[tuple[str, Text]]:
    """What of a case must not be elsewhere. That nothing is found is the service's own sentence."""
    question = Text(case.question)
    if len(question.words) >= LEAST:
        yield "question", question
    reference = Text(case.reference or "")
    if len(reference.words) >= RUN and not declined(case.reference or ""):
        yield "reference", reference
