"""Summaries: less under load and it is said, sections that a model's window holds, nothing twice, nothing
made of what says nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import SupportsIndex

import pytest

from app import deadline, summarize
from app.errors import TooMuchToSummarize
from app.release import load_release, with_model
from app.summarize import Summarizer
from app.types import Summary, SummaryRequest
from llm.cache import Cached
from llm.extractive import Extractive
from llm.fallback import Fallback
from llm.language import LANGUAGES, NOT_FOUND
from llm.scripted import Script, Scripted
from llm.tokens import Fitted, Tokens
from llm.types import ChatModel, Message
from tests.unit.test_query_path import ACME, Service, _small

RAIN = Script(pieces=("It rains there [1].",))


class Words:
    """A server with a window, whose tokens are words."""

    def __init__(self, window: int) -> None:
        self._window = window

    async def window(self) -> int | None:
        return self._window

    async def count(self, messages: Sequence[Message]) -> int | None:
        return sum(len(message.content.split()) for message in messages)


def stations(count: int, changed: int | None = None) -> list[str]:
    return [
        f"Station {n} {'was closed' if n == changed else 'measures rain'} number {n * 7} near the river bank."
        for n in range(count)
    ]


async def summary(service: Service, pressure: float = 0.0, **what: object) -> Summary:
    given: dict[str, object] = {"where": ACME, "deadline": deadline.after(20), **what}
    request = SummaryRequest(**given)  # type: ignore[arg-type]
    *_, last = [event async for event in service.summaries.summarize(request, pressure)]
    assert isinstance(last, Summary)
    return last


def windowed(model: Scripted, window: int, folder: Path, *fallbacks: ChatModel) -> Service:
    """A service whose first model has that window, over sections of 4 000 characters."""
    tokens = Tokens([Words(window)])
    service = Service(model, with_model(_small(folder, 4_000), model.name))
    chain = Fallback([Cached(Fitted(model, tokens), service.outputs, ttl=60, product="1"), *fallbacks])
    service.serving = replace(service.serving, model=chain)
    service.summaries = Summarizer(
        lambda: service.serving, service.board, service.store, product="1", tokens=lambda release: tokens
    )
    return service


class Watched(str):
    """A text that knows which threads cut it."""

    __slots__ = ("threads",)
    threads: set[int]

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        self.threads.add(threading.get_ident())
        return super().__getitem__(key)


async def test_a_text_is_cut_into_passages_off_the_event_loop() -> None:
    text = Watched(" ".join(stations(40)))
    text.threads = set()
    await summary(Service(Scripted(RAIN)), text=text)
    assert text.threads
    assert threading.get_ident() not in text.threads


@pytest.mark.parametrize(
    ("pressure", "model", "degraded"),
    [
        (0.0, "large", ()),
        (0.3, "large", ()),
        (0.6, "small", ("model:small",)),
        (0.8, "extractive", ("model:extractive",)),
        (0.95, "extractive", ("model:extractive",)),
    ],
)
async def test_the_fuller_the_house_the_smaller_the_model_of_a_summary_and_it_says_so(
    tmp_path: Path, pressure: float, model: str, degraded: tuple[str, ...]
) -> None:
    names = ("large", "small", "extractive")
    file = tmp_path / "release.toml"
    file.write_text('name = "r"\n' + "".join(f'[[models]]\nname = "{name}"\n' for name in names))
    models = [Scripted(RAIN, name=name) for name in names]
    service = Service(Fallback(models), load_release(file))
    await service.write("stations", *stations(9))
    found = await summary(service, pressure, document_ids=("stations",))
    assert (found.model, found.degraded) == (model, degraded)
    assert [one.name for one in models if one.calls] == [model]
    assert found.citations


async def test_a_section_beyond_the_models_window_is_cut_smaller_and_not_left_to_another_model(
    tmp_path: Path,
) -> None:
    model = Scripted(RAIN)
    service = windowed(model, 520, tmp_path, Extractive(None))
    await service.write("stations", *stations(160))
    found = await summary(service, document_ids=("stations",), max_words=20)
    assert (found.degraded, found.sections_cited > 0) == ((), True)
    for number in range(160):
        assert any(f"Station {number} " in call.prompt.messages[-1].content for call in model.calls)


async def test_one_passage_beyond_the_models_window_is_cut_too(tmp_path: Path) -> None:
    model = Scripted(RAIN)
    service = windowed(model, 520, tmp_path, Extractive(None))
    await service.write("stations", " ".join(stations(100)))
    found = await summary(service, document_ids=("stations",), max_words=20)
    assert found.degraded == ()
    assert len(model.calls) > 2
    assert {citation.document_id for citation in found.citations} == {"stations"}


async def test_an_answer_longer_than_the_window_is_not_asked_for(tmp_path: Path) -> None:
    model = Scripted(RAIN)
    service = windowed(model, 2_000, tmp_path)
    await service.write("stations", *stations(9))
    await summary(service, document_ids=("stations",), max_words=2_000)
    assert [call.sampling.max_tokens for call in model.calls] == [1_000]


async def test_after_a_change_only_its_section_and_the_whole_are_summarized_again(tmp_path: Path) -> None:
    model = Scripted(RAIN)
    service = windowed(model, 700, tmp_path)
    await service.write("stations", *stations(300))
    await summary(service, document_ids=("stations",), max_words=20)
    before = len(model.calls)
    assert before > 12
    await service.write("stations", *stations(300, changed=150))
    found = await summary(service, document_ids=("stations",), max_words=20)
    again = [call.prompt.messages[-1].content for call in model.calls[before:]]
    assert 1 <= len(again) <= 4
    assert sum("was closed" in prompt for prompt in again) == 1
    assert {citation.chunk_id.partition("-")[0] for citation in found.citations} == {"2"}


async def test_sections_that_say_nothing_about_the_focus_are_no_part_of_what_is_reduced(
    tmp_path: Path,
) -> None:
    model = Scripted(RAIN, Script(pieces=(NOT_FOUND,)), Script(pieces=(NOT_FOUND,)), RAIN)
    service = Service(model, with_model(_small(tmp_path, 1_000), model.name))
    await service.write("stations", *stations(40))
    await summary(service, document_ids=("stations",), focus="Where does it rain?")
    passages, _, asked = model.calls[-1].prompt.messages[-1].content.partition("</passages>")
    assert "It rains there." in passages
    assert NOT_FOUND not in passages
    assert NOT_FOUND in asked


async def test_where_no_section_has_to_do_with_the_focus_that_is_said_in_its_language(
    tmp_path: Path,
) -> None:
    model = Scripted(Script(pieces=(NOT_FOUND,)))
    service = Service(model, with_model(_small(tmp_path, 1_000), model.name))
    await service.write("stations", *stations(40))
    found = await summary(service, document_ids=("stations",), focus="Wer hat die Pyramiden gebaut?")
    assert found.text == LANGUAGES["de"].not_found
    assert (found.citations, found.support, found.degraded) == ((), (), ())


async def test_a_model_that_does_not_shorten_is_cut_short_and_that_is_declared(tmp_path: Path) -> None:
    model = Scripted(Script(pieces=tuple(f"Part {n} goes on and on [{n}]. " * 4 for n in range(1, 30))))
    service = Service(model, with_model(_small(tmp_path, 1_000), model.name))
    await service.write("stations", *stations(80))
    found = await summary(service, document_ids=("stations",), max_words=50)
    assert "sections" in found.degraded
    assert len(model.calls[-1].prompt.messages[-1].content.partition("</passages>")[0]) < 3_000


async def test_a_section_is_asked_for_fewer_words_than_it_has(tmp_path: Path) -> None:
    model = Scripted(RAIN)
    service = Service(model, with_model(_small(tmp_path, 1_000), model.name))
    await service.write("stations", *stations(80))
    await summary(service, document_ids=("stations",), max_words=2_000)
    asked = [call.prompt.messages[-1].content for call in model.calls]
    words = [int(one.partition("<words>")[2].partition("</words>")[0]) for one in asked]
    assert words[-1] == 2_000
    assert all(10 <= one < 100 for one in words[:-1])


async def test_of_more_than_can_be_read_the_passages_nearest_to_the_focus_are_summarized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summarize, "MOST_CHUNKS", 20)
    service = Service(Extractive(None))
    await service.write("stations", *stations(30), "The bakery sells rolls at dawn.")
    with pytest.raises(TooMuchToSummarize, match="focus"):
        await summary(service)
    found = await summary(service, focus="When does the bakery sell rolls?")
    assert "bakery sells rolls" in found.text


async def test_passages_that_the_store_does_not_give_are_declared() -> None:
    service = Service(Extractive(None))
    await service.write("stations", *stations(9))
    service.show("stations", 1, 12)
    assert (await summary(service, document_ids=("stations",))).degraded == ("visibility",)
