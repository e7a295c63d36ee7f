"""Every error that is raised on purpose has a status, and no caller learns of the others."""

from __future__ import annotations

import errno
import inspect
import logging
from types import ModuleType

import pytest

import app.errors
import ingestion.errors
import llm.errors
import retrieval.errors
from app.problems import TABLE, problem_of, respond


def raised_on_purpose() -> list[type[Exception]]:
    modules: tuple[ModuleType, ...] = (app.errors, ingestion.errors, llm.errors, retrieval.errors)
    return [
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and found.__module__ == module.__name__
    ]


@pytest.mark.parametrize("kind", raised_on_purpose(), ids=lambda kind: kind.__qualname__)
def test_every_error_has_a_row_of_its_own_or_of_its_base(kind: type[Exception]) -> None:
    assert any(base in TABLE for base in kind.__mro__)


def test_a_new_error_is_told_as_the_nearest_of_its_bases() -> None:
    class Fuller(ingestion.errors.DocumentTooLarge):
        pass

    problem = problem_of(Fuller("Too large.", "content"), "r")
    assert (problem.status, problem.code, problem.param) == (413, "document_too_large", "content")


@pytest.mark.parametrize(
    "error",
    [
        app.errors.AdmissionFull(3),
        ingestion.errors.LedgerUnavailable("out"),
        llm.errors.ModelOverloaded("busy", 11),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_passes_by_itself_says_when_to_come_back(error: Exception) -> None:
    reply = respond(problem_of(error, "r"))
    assert reply.status_code in (429, 503)
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (retrieval.errors.StoreUnavailable("Milvus did not answer within 5 s."), True),
        (ingestion.errors.LedgerUnavailable("out"), True),
        (ingestion.errors.StorageUnavailable("out"), True),
        (app.errors.AdmissionFull(3), False),
        (ingestion.errors.NotFound("document", "a"), False),
    ],
)
def test_the_log_says_which_part_is_away_and_why(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        problem_of(error, "r")
    assert (f"A part failed: {error}" in caplog.text) is logged


def test_a_defect_is_logged_and_told_by_its_request_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        problem = problem_of(KeyError("private words"), "request-7")
    assert problem.status == 500
    assert "request-7" in problem.message
    assert "private" not in problem.message
    assert "private words" in caplog.text
