"""Sections stay where their text stays, coverage sees content, vectors are kept for one tenant."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.coverage import coverage
from app.sections import condensed, numbered, sections
from app.similarity import Similarity
from app.support import Reading
from llm.types import Passage
from retrieval.embedders.prefixed import Prefixed
from retrieval.types import EmbedderSpec, Matrix, Prefixes


def _passages(texts: Sequence[str]) -> list[Passage]:
    return [Passage(number, "T", text) for number, text in enumerate(texts, start=1)]


@given(st.lists(st.text("ab ", min_size=1, max_size=90), max_size=40))
def test_every_passage_is_in_one_section_and_sections_fit(texts: list[str]) -> None:
    found = sections(_passages(texts), 100)
    assert [p.text for section in found for p in section] == texts
    assert all(len(section) == 1 or sum(len(p.text) for p in section) <= 100 for section in found)


def test_a_change_moves_only_the_sections_near_it() -> None:
    texts = [f"Passage {n} of a text about {n * 37 % 101} things." for n in range(200)]
    changed = [*texts[:90], "Something new.", *texts[90:]]
    before = {tuple(p.text for p in numbered(s)) for s in sections(_passages(texts), 800)}
    after = {tuple(p.text for p in numbered(s)) for s in sections(_passages(changed), 800)}
    assert len(after - before) <= 3 < len(after)


def test_a_section_is_condensed_under_the_passages_it_cites() -> None:
    section = (Passage(7, "T", "seven"), Passage(8, "T", "eight"))
    found = condensed("All of seven [1]. And both [2][1]. Nowhere [9].", section)
    assert [(p.number, p.text) for p in found] == [(7, "All of seven."), (8, "And both.")]


def test_coverage_is_the_share_of_text_that_is_spoken_of() -> None:
    passages = ["The pump was blocked by sand.", "The roof has solar panels now."]
    assert coverage(passages, ["Sand blocked the pump."]) == round(
        len(passages[0]) / sum(map(len, passages)), 4
    )
    assert coverage(passages, ["Sand blocked the pump.", "Solar panels are on the roof."]) == 1.0
    assert coverage(passages, ["Nothing of the kind."]) == 0.0
    assert coverage(passages, []) == coverage([], ["x"]) == 0.0


class Counting:
    spec = EmbedderSpec(name="c", artefact="c", dimension=2, max_tokens=8)

    def __init__(self) -> None:
        self.embedded: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Matrix:
        self.embedded += texts
        return np.array([[1.0, 0.0] if "a" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(at, at + 1) for at in range(len(text))]


async def test_a_sentence_is_embedded_once_for_a_tenant_and_again_for_another() -> None:
    embedder = Counting()
    similarity = Similarity(Prefixed(embedder))
    assert list(await similarity.score("acme", "a?", ["a", "b", "a"])) == [1.0, 0.0, 1.0]
    assert embedder.embedded == ["a?", "a", "b"]
    await similarity.score("acme", "b?", ["b", "a"])
    assert embedder.embedded == ["a?", "a", "b", "b?"]
    await similarity.score("other", "b?", ["b"])
    assert embedder.embedded[-1] == "b"


async def test_what_does_not_fit_the_window_is_cut_and_not_refused() -> None:
    embedder = Counting()
    await Similarity(Prefixed(embedder)).score("acme", "a", ["x" * 40])
    assert embedder.embedded[-1] == "x" * 6


async def test_question_and_sentences_are_read_behind_their_prefixes_in_one_call() -> None:
    embedder = Counting()
    prefixed = Prefixed(embedder, Prefixes(query="q:", document="d:"))
    await Similarity(prefixed).score("acme", "a", ["b", "x" * 40])
    assert embedder.embedded == ["q:a", "d:b", "d:xxxx"]
    await Similarity(prefixed, "document").score("acme", "a", ["b"])
    assert embedder.embedded[3:] == ["d:a", "d:b"]


async def test_a_release_with_another_prefix_is_given_no_vectors_of_the_first() -> None:
    embedder, reading = Counting(), Reading()
    for prefixes in (Prefixes(), Prefixes(document="d:"), Prefixes()):
        await reading.scorer(Prefixed(embedder, prefixes))("acme", "a", ["b"])
    assert embedder.embedded == ["a", "b", "d:a", "d:b", "a"]


async def test_long_texts_are_cut_where_they_hold_up_nobody() -> None:
    threads: list[int] = []

    class Watched(Counting):
        def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
            threads.append(threading.get_ident())
            return super().token_spans(text)

    embedder = Watched()
    await Similarity(Prefixed(embedder)).score("acme", "a", ["x" * 50_000, "y" * 50_000])
    assert embedder.embedded[1:] == ["x" * 6, "y" * 6]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_vectors_are_kept_within_bounds() -> None:
    embedder = Counting()
    similarity = Similarity(Prefixed(embedder), most=2)
    await similarity.score("acme", "q", ["a", "b", "c"])
    embedder.embedded.clear()
    await similarity.score("acme", "q", ["a", "c"])
    assert embedder.embedded == ["q", "a"]
