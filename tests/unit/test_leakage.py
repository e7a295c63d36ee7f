"""A case that the release or its index has seen is found, and one that only resembles others is not."""

from __future__ import annotations

from collections.abc import Mapping

from eval.leakage import leaks
from eval.types import Case, CaseResult, Gold, Passage, Sample
from llm.language import NOT_FOUND

QUESTION = "How many days of paid leave does a full-time employee have?"
REFERENCE = "Every full-time employee has 28 days of paid leave per calendar year."
CASE = Case(id="leave", question=QUESTION, gold=(Gold("leave", "28 days"),), reference=REFERENCE)
TEXTS = {"leave": f"Q: {QUESTION} A: {REFERENCE}", "remote": "Three days a week from home."}


def test_a_case_that_only_its_gold_document_holds_has_not_leaked() -> None:
    assert _leaks(CASE, hits=("leave",)) == ()


def test_a_question_in_a_prompt_has_leaked_in_whatever_case_and_spacing() -> None:
    prompt = f"Answer like this: {QUESTION.upper().replace(' ', '  ')} 28."
    assert _leaks(CASE, canonical=prompt) == ("The release holds the question of case leave.",)


def test_a_reference_in_a_prompt_has_leaked_though_its_end_was_changed() -> None:
    prompt = "Every full-time employee has 28 days of paid leave per calendar month, we said."
    assert _leaks(CASE, canonical=prompt) == ("The release nearly holds the reference of case leave.",)


def test_a_prompt_that_shares_a_few_words_has_not_seen_it() -> None:
    assert _leaks(CASE, canonical="How many days of paid leave are there? Say 28 days of paid leave.") == ()


def test_a_question_in_another_document_has_leaked() -> None:
    found = _leaks(CASE, texts={**TEXTS, "notes": f"Asked today: {QUESTION}"})
    assert found == ("Document notes holds the question of case leave.",)


def test_a_search_that_finds_the_question_itself_has_leaked() -> None:
    hit = Passage(document_id="chat-log", chunk_id="1", text=f"She asked: {QUESTION}")
    gold = Passage(document_id="leave", chunk_id="2", text=TEXTS["leave"])
    result = _result(CASE, (hit, hit, gold))
    assert leaks([result], "{}", TEXTS) == ("A search for the question of case leave finds it, in chat-log.",)


def test_what_many_texts_say_by_chance_is_no_leak() -> None:
    short = Case(id="e41", question="What is E41?", gold=(Gold("leave"),), reference="No network.")
    nothing = Case(id="dog", question="May I?", gold=(), reference=NOT_FOUND)
    texts = {**TEXTS, "other": f"What is E41? No network. {NOT_FOUND}"}
    for case in (short, nothing):
        assert _leaks(case, canonical=f"What is E41? {NOT_FOUND}", texts=texts) == ()


def _leaks(
    case: Case,
    canonical: str = "{}",
    texts: Mapping[str, str] = TEXTS,
    hits: tuple[str, ...] = (),
) -> tuple[str, ...]:
    found = tuple(Passage(document_id=name, chunk_id=name, text=texts[name]) for name in hits)
    return leaks([_result(case, found)], canonical, texts)


def _result(case: Case, hits: tuple[Passage, ...]) -> CaseResult:
    return CaseResult(case=case, sample=Sample(case_id=case.id, hits=hits, errors={}), scores={})
