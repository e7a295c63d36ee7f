"""The passages that a model is given: different ones, the best that fit, and how that is measured."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import context, deadline
from app.admission import Turn
from app.answers import Answers
from app.chat import Chat
from app.release import DEFAULT_RELEASE, ContextPart, Release, load_release
from app.types import Question, Sources
from eval import contexts
from eval.types import EvalError
from llm.errors import ContextTooLong
from llm.scripted import Script, Scripted
from llm.tokens import Fitted, Tokens
from llm.types import Message
from retrieval.types import Hit, Vector
from tests.passages import passage
from tests.unit.ranked_corpus import Same
from tests.unit.test_query_path import ACME, Service

TABLE = "Basic costs 10 euros a month. Plus costs 20 euros a month. Support costs extra."


def _vector(angle: float = 0.0) -> Vector:
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def _hit(
    name: str, text: str, *, title: str = "Prices", heading: str = "", vector: Vector | None = None
) -> Hit:
    chunk = passage(text, document_id=name, revision=1, title=title, heading=heading)
    chunk = replace(chunk, id=f"{name}-0")
    return Hit(chunk, 1.0, _vector() if vector is None else vector)


def _names(hits: Sequence[Hit]) -> list[str]:
    return [hit.chunk.document_id for hit in hits]


@pytest.mark.parametrize(
    "again",
    [
        TABLE,
        "BASIC costs 10 euros\n  a month.\nPlus costs 20 euros a month – support costs extra!",
        "Plus costs 20 euros a month.",
    ],
    ids=["the same", "laid out anew", "a part of it"],
)
def test_a_passage_that_only_repeats_a_better_one_leaves_its_place_to_the_next(again: str) -> None:
    hits = [_hit("best", TABLE), _hit("again", again), _hit("next", "Returns are free for 30 days.")]
    assert _names(context.chosen(hits, ContextPart(), 2)) == ["best", "next"]


@pytest.mark.parametrize(
    "other",
    [
        _hit("other", TABLE.replace("20", "25")),
        _hit("other", "Basic costs 20 euros a month. Plus costs 10 euros a month. Support costs extra."),
        _hit("other", TABLE.replace(" 10", " -10")),
        _hit("other", TABLE.replace("costs extra", "never costs extra")),
        _hit("other", TABLE, title="Prices 2025"),
        _hit("other", TABLE, heading="Prices > Munich"),
        _hit("other", f"{TABLE} Cancel at any time."),
        _hit("other", "Support costs extra.", vector=_vector(1.5)),
    ],
    ids=[
        "a number",
        "numbers swapped",
        "a sign",
        "a denial",
        "a year in the title",
        "a heading",
        "more",
        "elsewhere",
    ],
)
def test_a_passage_that_says_anything_else_is_given_too(other: Hit) -> None:
    assert _names(context.chosen([_hit("best", TABLE), other], ContextPart(), 8)) == ["best", "other"]


def test_a_release_can_keep_repetitions() -> None:
    part = ContextPart(distinct=False)
    assert _names(context.chosen([_hit("a", TABLE), _hit("b", TABLE)], part, 8)) == ["a", "b"]


def test_the_best_passages_that_fit_are_chosen_and_at_least_one() -> None:
    hits = [_hit(str(n), f"{n} " * 75) for n in range(9)]
    assert _names(context.chosen(hits, ContextPart(max_characters=500), 8)) == ["0", "1", "2"]
    assert len(context.chosen(hits, ContextPart(), 8)) == 8
    assert _names(context.chosen([_hit("long", "word " * 200)], ContextPart(max_characters=200), 8)) == [
        "long"
    ]


# In the prompt, and within the model's window.


class Words:
    """A server whose tokens are words; `asked` is how often it counted."""

    def __init__(self, window: int) -> None:
        self._window = window
        self.asked = 0

    async def window(self) -> int | None:
        return self._window

    async def count(self, messages: Sequence[Message]) -> int | None:
        self.asked += 1
        return sum(len(message.content.split()) for message in messages)


TOPICS = ("overtime", "parking", "pension", "sabbatical")
ASKED = "What is the rule for a pension?"


async def _windowed(server: Words) -> tuple[Service, Scripted]:
    """A service whose model has the server's window, over four passages of 60 words."""
    model = Scripted(Script(pieces=("It is so [1].",)))
    tokens = Tokens([server])
    service = Service(Fitted(model, tokens))

    def told(release: Release) -> Tokens:
        return tokens

    answers = Answers(service.outputs, product="1")
    service.chat = Chat(lambda: service.serving, service.board, answers, product="1", tokens=told)
    for topic in TOPICS:
        rest = " ".join(f"{topic[:3]}{n}" for n in range(55))
        await service.write(topic, f"The rule for {topic}: {rest} end.")
    return service, model


def _given(model: Scripted) -> list[str]:
    text = model.calls[-1].prompt.messages[-1].content
    return [topic for topic in TOPICS if f"for {topic}:" in text]


async def test_a_prompt_longer_than_the_window_is_trimmed_to_the_best_passages() -> None:
    server = Words(480)
    service, model = await _windowed(server)
    _, answer = await service.ask(ASKED, max_tokens=60)
    given = _given(model)
    assert "pension" in given
    assert 1 <= len(given) < len(TOPICS)
    assert answer.degraded == ()
    await service.ask(ASKED, max_tokens=160)
    assert len(_given(model)) < len(given)


async def test_history_counts_against_the_window() -> None:
    service, model = await _windowed(Words(600))
    await service.ask(ASKED, max_tokens=60)
    assert _given(model) == list(TOPICS)
    history = (Message("user", "Hello"), Message("assistant", "so " * 150), Message("user", ASKED))
    await service.ask("", messages=history, max_tokens=60)
    assert 1 <= len(_given(model)) < len(TOPICS)


async def test_what_fits_by_estimate_is_neither_counted_nor_trimmed() -> None:
    server = Words(32_768)
    service, model = await _windowed(server)
    await service.ask(ASKED)
    assert (_given(model), server.asked) == (list(TOPICS), 0)


async def test_where_not_even_one_passage_fits_the_model_is_still_the_one_to_say_so() -> None:
    service, model = await _windowed(Words(300))
    with pytest.raises(ContextTooLong):
        await service.ask(ASKED, max_tokens=60)
    assert model.calls == []


async def test_citations_of_a_trimmed_prompt_name_the_passages_it_has() -> None:
    service, _ = await _windowed(Words(350))
    _, answer = await service.ask(ASKED, max_tokens=60)
    assert [(c.document_id, c.chunk_id) for c in answer.citations] == [("pension", "3-0")]


async def test_what_a_spared_model_could_not_take_is_given_to_what_answers_instead() -> None:
    service, model = await _windowed(Words(350))

    @asynccontextmanager
    async def crowded() -> AsyncIterator[Turn]:
        yield Turn(0.95)

    question = Question(messages=(Message("user", ASKED),), where=ACME, deadline=deadline.after(20))
    first, *_ = [event async for event in service.chat.ask(question, crowded)]
    assert isinstance(first, Sources)
    assert (_names(first.hits), model.calls) == (list(TOPICS), [])


async def test_a_document_that_repeats_itself_does_not_crowd_out_the_others() -> None:
    model = Scripted(Script(pieces=("It is so [1].",)))
    service = Service(model)
    await service.write("minutes", *["A pension is paid from 67 on."] * 20)
    await service.write("rules", "Whoever gets a pension may still work here, at most 20 hours.")
    await service.ask("When is a pension paid?")
    said = model.calls[-1].prompt.messages[-1].content
    assert (said.count("from 67 on"), said.count("at most 20 hours")) == (1, 1)


# The measurement.


def _quiet(step: str, done: int, total: int) -> None:
    return


@pytest.fixture
def excerpts(tmp_path: Path) -> Path:
    """Two texts, and a question about the end of the first."""
    folder = tmp_path / "excerpts"
    (folder / "corpora").mkdir(parents=True)
    (folder / "corpora/rain.md").write_text("The river rose. The mill\nstood in water by the tenth of May.\n")
    (folder / "corpora/sun.md").write_text("It was dry in the south.\n")
    reference = {"content": "The mill stood in water by the tenth of May."}
    row = {"question": "When did the mill stand in water?", "corpus_id": "rain", "references": [reference]}
    (folder / "questions.jsonl").write_text(json.dumps(row))
    return folder


async def test_gold_text_that_is_among_the_passages_is_found(excerpts: Path) -> None:
    corpus = contexts.load(str(excerpts), 10)
    assert [(p.document_id, p.start, p.end) for p in corpus.questions[0].gold[0]] == [("rain", 16, 60)]
    rows = await contexts.measured(corpus, load_release(DEFAULT_RELEASE), Same(), _quiet)
    assert [row.budget for row in rows] == ["8 passages", "3000 characters", "6000 characters"]
    given = rows[0].means[contexts.RELEASE]
    assert (given.found, given.whole) == (1.0, 1.0)
    assert given.overlap == pytest.approx(44 / (60 + 24))
    assert "| excerpts (1) | 8 passages | 1.000 |" in contexts.markdown(rows)


async def test_gold_text_that_two_passages_share_is_whole_only_if_they_were_one(excerpts: Path) -> None:
    release = load_release(DEFAULT_RELEASE)
    index = release.body.index.model_copy(update={"chunk_tokens": 32})
    small = replace(release, body=release.body.model_copy(update={"index": index}))
    row = (await contexts.measured(contexts.load(str(excerpts), 10), small, Same(), _quiet))[0]
    given = row.means[contexts.RELEASE]
    assert (given.whole, given.joined) == (0.0, 1.0)


async def test_copies_crowd_the_gold_out_of_what_is_found_but_not_of_what_the_release_gives(
    tmp_path: Path,
) -> None:
    (tmp_path / "qrels").mkdir()
    texts = {"a": "leave leave leave", "b": "leave leave rules", "c": "leave of staff in detail"}
    (tmp_path / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"_id": name, "title": "", "text": text}) for name, text in texts.items())
    )
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": "leave"}))
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tc\t1\n")
    release = load_release(DEFAULT_RELEASE)
    search = release.body.search.model_copy(update={"limit": 3})
    small = replace(release, body=release.body.model_copy(update={"search": search}))
    corpus = contexts.copied(contexts.load(str(tmp_path), 10), 2)
    row = (await contexts.measured(corpus, small, Same(), _quiet))[0]
    assert (row.means[contexts.AS_FOUND].found, row.means[contexts.RELEASE].found) == (0.0, 1.0)


def test_a_gold_text_that_is_nowhere_is_an_error(excerpts: Path) -> None:
    (excerpts / "corpora/rain.md").write_text("Nothing.\n")
    with pytest.raises(EvalError, match="The mill stood"):
        contexts.load(str(excerpts), 10)
