"""What an answer does without when the house is full, and that it says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app import deadline
from app.admission import Admission, Turn
from app.errors import AdmissionFull
from app.release import load_release
from app.types import Answer
from llm.fallback import Fallback
from llm.scripted import Script, Scripted
from tests.unit.test_query_path import TEXTS, Service, _question

SAID = Script(pieces=("You get 28 days [1].",))
QUESTION = "How many days of paid leave?"


async def service(folder: Path) -> tuple[Service, list[Scripted]]:
    """A chain of three models over the usual documents, with the ladder of the default release."""
    names = ("large", "small", "extractive")
    file = folder / "release.toml"
    file.write_text('name = "r"\n' + "".join(f'[[models]]\nname = "{name}"\n' for name in names))
    models = [Scripted(SAID, name=name) for name in names]
    found = Service(Fallback(models), load_release(file))
    for document_id, text in TEXTS.items():
        await found.write(document_id, text)
    return found, models


async def ask(house: Service, pressure: float) -> Answer:
    @asynccontextmanager
    async def turn() -> AsyncIterator[Turn]:
        yield Turn(pressure)

    *_, last = [event async for event in house.chat.ask(_question(QUESTION), turn)]
    assert isinstance(last, Answer)
    return last


@pytest.mark.parametrize(
    ("pressure", "model", "degraded"),
    [
        (0.0, "large", ()),
        (0.6, "small", ("model:small",)),
        (0.8, "extractive", ("model:extractive",)),
        (0.95, "none", ("model:none",)),
    ],
)
async def test_the_fuller_the_house_the_less_an_answer_is_and_it_says_so(
    tmp_path: Path, pressure: float, model: str, degraded: tuple[str, ...]
) -> None:
    house, models = await service(tmp_path)
    answer = await ask(house, pressure)
    assert (answer.model, answer.degraded) == (model, degraded)
    assert [one.name for one in models if one.calls] == [name for name in (model,) if name != "none"]
    assert answer.citations


async def test_an_answer_made_under_pressure_is_not_kept(tmp_path: Path) -> None:
    house, _ = await service(tmp_path)
    await ask(house, 0.8)
    assert (await ask(house, 0.0)).model == "large"


async def test_a_kept_answer_waits_for_no_turn(tmp_path: Path) -> None:
    house, _ = await service(tmp_path)
    full = Admission(max_running=1, max_waiting=0)

    await ask(house, 0.0)
    async with full.turn("acme", deadline.after(30)):
        wanted = _question(QUESTION)
        events = [e async for e in house.chat.ask(wanted, lambda: full.turn("acme", wanted.deadline))]
        assert isinstance(events[-1], Answer)
        assert events[-1].cached == "answer"
        other = _question("When is the office closed?")
        with pytest.raises(AdmissionFull):
            _ = [e async for e in house.chat.ask(other, lambda: full.turn("acme", other.deadline))]
    assert full.running == 0
