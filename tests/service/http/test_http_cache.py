"""A kept answer is served again only where nothing that went into it is another; and each part of that rule
is seen to matter: without it, the same scenario serves what it must not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from app import deadline
from app.answers import Answers
from app.release import DEFAULT_RELEASE, Release, load_release
from app.types import Answer, Question, Token
from llm.errors import ModelUnavailable, StreamBroken
from llm.scripted import Script
from llm.types import Message
from retrieval.types import Filter, Look, OneOf
from tests.service.http.house import House, Tenant

ANSWER = Script(pieces=("You get 28 days [1].",))
CHANGED = Script(pieces=("You get 30 days [1].",))
ASKED = "How many days of paid leave do employees get?"
TEXT = "Employees get 28 days of paid leave a year."


def _question(tenant: Tenant, **change: object) -> Question:
    question = Question(
        messages=(Message("user", ASKED),),
        where=Filter(tenant=tenant.name, groups=None),
        deadline=deadline.after(20),
    )
    return replace(question, **change)  # type: ignore[arg-type]


async def _ask(house: House, question: Question) -> Answer:
    async with aclosing(house.services.chat.ask(question)) as events:
        async for event in events:
            if isinstance(event, Answer):
                return event
    raise AssertionError("the answer never came")


async def _add(tenant: Tenant, text: str = TEXT, **more: object) -> None:
    await tenant.add({"id": "leave", "title": "Leave", "text": text, "metadata": {"year": 2026}, **more})


def _where(**change: object) -> Callable[[Question], Question]:
    return lambda question: replace(question, where=replace(question.where, **change))  # type: ignore[arg-type]


def _history(question: Question) -> Question:
    return replace(question, messages=(Message("assistant", "Hello."), question.messages[-1]))


CHANGES: dict[str, Callable[[Question], Question]] = {
    "rights": _where(groups=frozenset({"hr"})),
    "collections": _where(collections=("default",)),
    "documents": _where(document_ids=("leave",)),
    "conditions": _where(where=OneOf("year", (2026,))),
    "question": lambda q: replace(q, messages=(Message("user", ASKED.lower()),)),
    "history": _history,
    "length": lambda q: replace(q, max_tokens=50),
    "temperature": lambda q: replace(q, temperature=0.5),
    "top_p": lambda q: replace(q, top_p=0.5),
    "seed": lambda q: replace(q, seed=7),
    "stop": lambda q: replace(q, stop=("END",)),
}
"""One part of a question at a time, each a change after which the same passage is still found."""


@contextmanager
def _blind(monkeypatch: pytest.MonkeyPatch, to: Callable[[Question], Question]) -> Iterator[None]:
    """A cache whose key does not see one part: every question looks like the changed one."""
    key = Answers.key
    with monkeypatch.context() as patch:
        patch.setattr(Answers, "key", lambda self, question, release: key(self, to(question), release))
        yield


@pytest.mark.parametrize("part", sorted(CHANGES))
async def test_a_question_that_differs_in_one_part_is_answered_anew(
    house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    await _add(tenant)
    question, other = _question(tenant), CHANGES[part](_question(tenant))
    with house.stage.plays(ANSWER):
        assert (await _ask(house, question)).cached is None
        assert (await _ask(house, question)).cached == "answer"
        assert (await _ask(house, other)).cached != "answer"
        # The scenario can tell: with a key that does not see this part, one's answer is served to the other.
        fresh = replace(question, messages=(Message("user", f"{ASKED} Say it."),))
        with _blind(monkeypatch, CHANGES[part]):
            await _ask(house, fresh)
            assert (await _ask(house, CHANGES[part](fresh))).cached == "answer"


async def test_no_answer_crosses_tenants(
    house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await house.tenant()
    await _add(tenant)
    await _add(other)
    with house.stage.plays(ANSWER) as model:
        await _ask(house, _question(tenant))
        assert (await _ask(house, _question(other))).cached is None
        assert len(model.calls) == 2
        # With a key that forgets the tenant, the other's sources are still not shown.
        with _blind(monkeypatch, _where(tenant=tenant.name)):
            assert (await _ask(house, _question(other))).cached != "answer"


async def test_no_answer_outlives_an_update_a_delete_or_a_change_of_rights(
    house: House, tenant: Tenant
) -> None:
    await _add(tenant)
    with house.stage.plays(ANSWER, CHANGED):
        await _ask(house, _question(tenant))
        assert (await _ask(house, _question(tenant))).cached == "answer"
        await _add(tenant, "Employees get 30 days of paid leave a year.")
        answer = await _ask(house, _question(tenant))
        assert (answer.text, answer.cached) == ("You get 30 days [1].", None)
        await _add(tenant, "Employees get 30 days of paid leave a year.", groups=["hr"])
        member, guest = _where(groups=frozenset({"hr"})), _where(groups=frozenset({"it"}))
        assert (await _ask(house, member(_question(tenant)))).citations
        assert not (await _ask(house, guest(_question(tenant)))).citations
        assert (await tenant.http.delete("/v1/documents/leave")).status_code == 200
        gone = await _ask(house, member(_question(tenant)))
        assert (gone.citations, gone.cached) == ((), None)


@pytest.mark.parametrize("seen", ["epoch", "revisions"])
async def test_epoch_and_revisions_are_each_enough_to_turn_an_old_answer_away(
    house: House, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """What the ledger says about one of the two is forged to be as before."""
    await _add(tenant)
    reads = house.services.visibility
    with house.stage.plays(ANSWER, CHANGED):
        await _ask(house, _question(tenant))
        before = await reads.epoch(_question(tenant).where)
        await _add(tenant, "Employees get 30 days of paid leave a year.")
        look = type(reads).look

        async def forged(self: object, generation: str, where: Filter, candidates: object) -> Look:
            told: Look = await look(self, generation, where, candidates)  # type: ignore[arg-type]
            asked = {revision: math.inf for _, revision in candidates}  # type: ignore[attr-defined]
            return replace(told, ages=asked) if seen == "epoch" else replace(told, epoch=before)

        monkeypatch.setattr(type(reads), "look", forged)
        answer = await _ask(house, _question(tenant))
        assert (answer.text, answer.cached) == ("You get 30 days [1].", None)


async def test_another_release_does_not_serve_the_answers_of_the_one_before(
    house: House, tenant: Tenant, tmp_path: Path
) -> None:
    await _add(tenant)
    answers = house.services.chat._answers
    (tmp_path / "r.toml").write_text(DEFAULT_RELEASE.read_text().replace("limit = 8", "limit = 7"))
    releases: list[Release] = [load_release(DEFAULT_RELEASE), load_release(tmp_path / "r.toml")]
    keys = {answers.key(_question(tenant), release) for release in releases}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "script",
    [
        Script(pieces=("You get 28",), finish="length"),
        Script(pieces=("You get ",), error=StreamBroken("gone")),
        Script(error=ModelUnavailable("away")),
    ],
    ids=["cut off", "broken off", "down"],
)
async def test_what_is_not_whole_is_not_kept(house: House, tenant: Tenant, script: Script) -> None:
    await _add(tenant)
    with house.stage.plays(script, ANSWER):
        with suppress(StreamBroken, ModelUnavailable):
            await _ask(house, _question(tenant))
        answer = await _ask(house, _question(tenant))
        assert answer.cached is None


async def test_the_same_question_at_the_same_time_is_worked_out_once(house: House, tenant: Tenant) -> None:
    await _add(tenant)
    with house.stage.plays(Script(pieces=("You get ", "28 days ", "[1]."), pace=0.1)) as model:
        answers = await asyncio.gather(*(_ask(house, _question(tenant)) for _ in range(6)))
        assert len(model.calls) == 1
    assert {answer.text for answer in answers} == {"You get 28 days [1]."}
    assert sorted(str(answer.cached) for answer in answers) == ["None", *["answer"] * 5]


async def test_others_do_not_wait_for_one_that_fails_and_then_for_each_other(
    house: House, tenant: Tenant
) -> None:
    await _add(tenant)
    slow = Script(pieces=("You get ", "28"), pace=0.2, finish="length")
    with house.stage.plays(slow) as model:
        answers = await asyncio.gather(*(_ask(house, _question(tenant)) for _ in range(5)))
        assert len(model.calls) == 5
    assert all(answer.finish == "length" and answer.cached is None for answer in answers)


async def test_the_first_who_hangs_up_leaves_nobody_waiting(house: House, tenant: Tenant) -> None:
    await _add(tenant)
    with house.stage.plays(Script(pieces=("You get ", "28 days ", "[1]."), pace=0.2)):
        events = house.services.chat.ask(_question(tenant))
        while not isinstance(await anext(events), Token):
            pass
        second = asyncio.create_task(_ask(house, _question(tenant)))
        await asyncio.sleep(0.05)
        await events.aclose()
        answer = await asyncio.wait_for(second, 10)
    assert (answer.text, answer.cached) == ("You get 28 days [1].", None)
