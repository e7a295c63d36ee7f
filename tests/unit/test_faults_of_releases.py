"""Which errors a release on trial has to answer for."""

from __future__ import annotations

import pytest

from app.errors import AdmissionFull, DeadlineExceeded, NothingToSummarize, SourceChanged
from app.outcomes import facts_of_fault, is_fault, unsupported
from app.types import Support, Verdict
from llm.errors import ContextTooLong, ModelOverloaded, ModelRejected, StreamBroken
from retrieval.errors import FilterInvalid, StoreUnavailable, TextTooLong


@pytest.mark.parametrize(
    "error",
    [
        ModelRejected("no such model"),
        ContextTooLong("too long"),
        TextTooLong(600, 512),
        ModelOverloaded("busy"),
        StreamBroken("it died"),
        StoreUnavailable("away"),
        DeadlineExceeded("over"),
        ZeroDivisionError(),
    ],
)
def test_what_its_parts_do_not_do_is_the_release_s(error: Exception) -> None:
    assert is_fault(error)
    assert facts_of_fault(error, 0.5)["fault"] == 1.0


@pytest.mark.parametrize(
    "error", [AdmissionFull(1.0), SourceChanged("changed"), NothingToSummarize("none"), FilterInvalid("bad")]
)
def test_what_any_release_would_have_met_is_not(error: Exception) -> None:
    assert not is_fault(error)


def test_a_sentence_without_a_source_is_unsupported_and_one_in_doubt_is_not() -> None:
    verdicts: tuple[Verdict, ...] = ("supported", "weak", "unsupported", "uncited")
    sentences = [
        Support(
            sentence=n, start=0, end=1, citations=(), verdict=verdict, score=0.5, reason="unlike", spans=()
        )
        for n, verdict in enumerate(verdicts, start=1)
    ]
    assert unsupported(sentences) == 0.5
    assert unsupported([]) is None
