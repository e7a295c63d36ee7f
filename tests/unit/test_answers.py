"""A kept answer is found again only by the same caller, for the same question, on the same evidence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from app.answers import Answers, Kept
from app.context import citation
from app.release import DEFAULT_RELEASE, load_release
from app.types import Answer, Question, SourceSpan, Support, Usage
from app.wiring import OUTPUTS, PRODUCT
from llm import extractive
from llm.outputs import MemoryOutputs
from llm.types import Message
from retrieval.types import Chunk, Filter, Hit, OneOf, Span

QUESTION = Question(
    messages=(Message("user", "How long is paid leave?"),),
    where=Filter(tenant="a", groups=frozenset({"hr"}), collections=("c",)),
    deadline=0.0,
)
CHUNK = Chunk(
    id="7-0",
    tenant="a",
    collection="c",
    document_id="leave",
    revision=7,
    ordinal=0,
    content_hash="h",
    title="Leave",
    heading="Paid",
    text="28 days.",
    page=2,
    span=Span(3, 11),
    groups=frozenset({"hr"}),
    metadata={"year": 2026, "tags": ["x"]},
)


def _answers(product: str = "1") -> Answers:
    return Answers(MemoryOutputs(), product=product)


def _where(**change: object) -> Question:
    return replace(QUESTION, where=replace(QUESTION.where, **change))  # type: ignore[arg-type]


CHANGES: dict[str, Callable[[], Question]] = {
    "tenant": lambda: _where(tenant="b"),
    "groups": lambda: _where(groups=frozenset({"hr", "it"})),
    "every group": lambda: _where(groups=None),
    "no group": lambda: _where(groups=frozenset()),
    "collections": lambda: _where(collections=("d",)),
    "document ids": lambda: _where(document_ids=("x",)),
    "where": lambda: _where(where=OneOf("year", (2026,))),
    "question": lambda: replace(QUESTION, messages=(Message("user", "How long is sick leave?"),)),
    "case": lambda: replace(QUESTION, messages=(Message("user", "how long is paid leave?"),)),
    "history": lambda: replace(QUESTION, messages=(Message("user", "Hello"), *QUESTION.messages)),
    "role": lambda: replace(QUESTION, messages=(Message("system", QUESTION.messages[0].content),)),
    "length": lambda: replace(QUESTION, max_tokens=5),
    "temperature": lambda: replace(QUESTION, temperature=0.5),
    "top_p": lambda: replace(QUESTION, top_p=0.5),
    "seed": lambda: replace(QUESTION, seed=1),
    "stop": lambda: replace(QUESTION, stop=("x",)),
}


@pytest.mark.parametrize("part", sorted(CHANGES))
def test_every_part_of_the_key_counts(part: str) -> None:
    answers, release = _answers(), load_release(DEFAULT_RELEASE)
    others = [QUESTION, *(change() for name, change in CHANGES.items() if name != part)]
    assert answers.key(CHANGES[part](), release) not in {answers.key(other, release) for other in others}


def test_no_field_of_a_question_is_left_out() -> None:
    """`deadline` and `cache` change no answer that is kept."""
    changed = [change() for change in CHANGES.values()]
    for kind, base, others in (
        (Question, QUESTION, changed),
        (Filter, QUESTION.where, [one.where for one in changed]),
    ):
        for name in {field.name for field in fields(kind)} - {"deadline", "cache"}:
            assert any(getattr(other, name) != getattr(base, name) for other in others), name


def test_release_and_product_count(tmp_path: Path) -> None:
    release = load_release(DEFAULT_RELEASE)
    (tmp_path / "r.toml").write_text(DEFAULT_RELEASE.read_text().replace("limit = 8", "limit = 7"))
    other = load_release(tmp_path / "r.toml")
    key = _answers().key(QUESTION, release)
    assert _answers().key(QUESTION, other) != key
    assert _answers("2").key(QUESTION, release) != key


def test_values_of_different_types_do_not_meet() -> None:
    answers, release = _answers(), load_release(DEFAULT_RELEASE)
    keys = {answers.key(_where(where=OneOf("year", (value,))), release) for value in (1, "1", True, 1.5)}
    assert len(keys) == 4


def test_outer_space_and_composition_do_not_count() -> None:
    answers, release = _answers(), load_release(DEFAULT_RELEASE)
    one = replace(QUESTION, messages=(Message("user", "Caf\u00e9?"),))
    two = replace(QUESTION, messages=(Message("user", "  Cafe\u0301? \n"),))
    assert answers.key(one, release) == answers.key(two, release)


def _kept() -> Kept:
    answer = Answer(
        text="28 days [1].",
        citations=(citation(1, CHUNK),),
        release="r",
        degraded=(),
        stages={"search": 0.1},
        usage=Usage(prompt_tokens=1, output_tokens=2),
        model="m",
        finish="stop",
        support=(
            Support(
                sentence=1,
                start=0,
                end=12,
                citations=(1,),
                verdict="supported",
                score=0.9,
                reason="quoted",
                spans=(SourceSpan(document_id="leave", chunk_id="7-0", start=3, end=11),),
            ),
        ),
    )
    return Kept(hits=(Hit(CHUNK, 0.5),), answer=answer, epoch="e")


async def test_an_answer_comes_back_as_it_was_kept() -> None:
    answers, given = _answers(), _kept()
    await answers.put("k", given, 60)
    kept = await answers.get("k")
    assert kept is not None
    assert kept.epoch == "e"
    assert kept.hits == (Hit(CHUNK, 0.5),)
    assert kept.answer == replace(given.answer, cached="answer")


async def test_an_answer_is_forgotten_with_a_document_of_its_tenant_that_it_was_made_from() -> None:
    outputs = MemoryOutputs()
    answers = Answers(outputs, product="1")
    await answers.put("k", _kept(), 60)
    assert await outputs.forget(["b/leave", "a/pay", "leave"]) == 0
    assert await outputs.forget(["a/leave"]) == 1
    assert await answers.get("k") is None


def test_kept_outputs_are_those_of_this_built_in_model() -> None:
    """A product whose version stayed the same may answer otherwise."""
    assert re.fullmatch(r"[0-9a-f]{12}", extractive.version())
    assert OUTPUTS.endswith(extractive.version())
    assert OUTPUTS.startswith(PRODUCT)
