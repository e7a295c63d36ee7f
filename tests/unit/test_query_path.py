"""The query path and summaries over the store in memory: what an asker sees while models fail, documents
change and outputs are cached."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from app import deadline
from app.admission import Admission, TakeTurn, Turn
from app.answers import Answers
from app.chat import Chat
from app.errors import DeadlineExceeded, NothingToSummarize, SourceChanged
from app.release import DEFAULT_RELEASE, Release, load_release, with_model
from app.serving import Serving
from app.summarize import Summarizer
from app.types import Answer, Event, Progress, Question, Sources, Summary, SummaryRequest, Support, Token
from llm.cache import Cached
from llm.errors import ModelRejected, ModelUnavailable, StreamBroken
from llm.extractive import Extractive
from llm.fallback import Fallback
from llm.language import LANGUAGES
from llm.outputs import MemoryOutputs
from llm.scripted import Script, Scripted
from llm.types import Caching, ChatModel, Message
from retrieval.analyze import analyzer
from retrieval.embedders.prefixed import Prefixed
from retrieval.errors import EmbedderUnavailable
from retrieval.search import Index
from retrieval.stores.memory import MemoryStore
from retrieval.types import Chunk, EmbedderSpec, Filter, Look, Matrix, Row
from tests.passages import passage

ACME = Filter(tenant="acme", groups=frozenset())
TEXTS = {
    "leave": "Employees are entitled to 28 days of paid leave a year.",
    "pump": "The display shows E-1042 when the pump is blocked.",
    "roof": "Solar panels on the roof are inspected every spring.",
}


class Hashing:
    """Words hashed into a vector: enough for a search that must only find the right text."""

    spec = EmbedderSpec(name="hashing", artefact="hashing", dimension=64, max_tokens=256)
    hangs = False
    """From the second call of a request on: the first one is the search."""
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What happens while the next texts are embedded: one is the search, several are a check."""

    async def embed(self, texts: Sequence[str]) -> Matrix:
        if self.hangs and len(texts) > 1:
            await asyncio.Event().wait()
        if self.meanwhile:
            await self.meanwhile()
        vectors = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in analyzer("snowball-english").terms(text).split():
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1
        normalised: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalised

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return []


class Board:
    """The visible revision of each document of the one tenant, and the epoch of all of them."""

    def __init__(self) -> None:
        self.shown: dict[str, tuple[int, int]] = {}
        self.changes = 0

    async def visible(
        self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]
    ) -> frozenset[int]:
        mine = where.tenant == "acme"
        return frozenset(r for d, r in candidates if mine and self.shown.get(d, (0, 0))[0] == r)

    async def epoch(self, where: Filter) -> str:
        return str(self.changes)

    async def look(self, generation: str, where: Filter, candidates: Collection[tuple[str, int]]) -> Look:
        shown = await self.visible(generation, where, candidates)
        return Look(epoch=await self.epoch(where), ages=dict.fromkeys(shown, math.inf))

    async def all_visible(self, generation: str, where: Filter, limit: int) -> tuple[str, Sequence[int]]:
        mine = where.tenant == "acme"
        return str(self.changes), [r for r, _ in self.shown.values() if mine][:limit]

    async def contents(self, generation: str, where: Filter, limit: int) -> list[tuple[str, int, int]]:
        wanted = where.document_ids or tuple(self.shown)
        return [(d, *self.shown[d]) for d in sorted(self.shown) if d in wanted][:limit]


class Service:
    """Chat and summaries with a given model, over documents that the test writes."""

    def __init__(self, model: ChatModel, release: Release | None = None) -> None:
        self.board, self.store, self.outputs = Board(), MemoryStore(), MemoryOutputs()
        self.release = release or with_model(load_release(DEFAULT_RELEASE), model.name)
        self.embedder = Hashing()
        self.spec = self.release.index_spec(self.embedder.spec, "1")
        words = analyzer(self.spec.analyzer)
        index = Index(self.spec.generation, self.store, Prefixed(self.embedder), words, self.board)
        self.serving = Serving(release=self.release, index=index, model=model)
        answers = Answers(self.outputs, product="1")
        self.chat = Chat(lambda: self.serving, self.board, answers, product="1")
        self.summaries = Summarizer(lambda: self.serving, self.board, self.store, product="1")
        self._revision = 0

    async def write(self, document_id: str, *texts: str) -> None:
        await self.store.prepare(self.spec.generation, self.spec)
        self._revision += 1
        vectors = await self.embedder.embed(texts)
        words = analyzer(self.spec.analyzer)
        rows = [
            Row(chunk=self._chunk(document_id, n, text), vector=vectors[n], terms=words.terms(text))
            for n, text in enumerate(texts)
        ]
        await self.store.upsert(self.spec.generation, rows)
        self.show(document_id, self._revision, len(texts))

    def show(self, document_id: str, revision: int, chunks: int) -> None:
        self.board.shown[document_id] = (revision, chunks)
        self.board.changes += 1

    def delete(self, document_id: str) -> None:
        del self.board.shown[document_id]
        self.board.changes += 1

    def _chunk(self, document_id: str, ordinal: int, text: str) -> Chunk:
        return passage(
            text, document_id=document_id, revision=self._revision, ordinal=ordinal, title=document_id
        )

    async def ask(self, text: str, **change: object) -> tuple[str, Answer]:
        question = replace(_question(text), **change)  # type: ignore[arg-type]
        events = [event async for event in self.chat.ask(question)]
        assert isinstance(events[-1], Answer)
        return "".join(e.text for e in events if isinstance(e, Token)), events[-1]


def _question(text: str, *history: Message) -> Question:
    return Question(messages=(*history, Message("user", text)), where=ACME, deadline=deadline.after(20))


async def _service(*scripts: Script) -> tuple[Service, Scripted]:
    model = Scripted(*scripts)
    service = Service(model)
    for document_id, text in TEXTS.items():
        await service.write(document_id, text)
    return service, model


ANSWER = Script(pieces=("You get 28 ", "days [", "1]", "."))


async def test_an_answer_cites_the_passage_it_names() -> None:
    service, _ = await _service(ANSWER)
    text, answer = await service.ask("How many days of paid leave?")
    assert text == answer.text == "You get 28 days [1]."
    assert [c.document_id for c in answer.citations] == ["leave"]
    assert answer.citations[0].text == TEXTS["leave"]
    assert answer.degraded == ()
    assert answer.release == service.release.id


async def test_sources_come_before_the_first_token() -> None:
    service, _ = await _service(ANSWER)
    events: list[Event] = [e async for e in service.chat.ask(_question("paid leave"))]
    assert isinstance(events[0], Sources)
    assert "leave" in {hit.chunk.document_id for hit in events[0].hits}
    assert isinstance(events[1], Token)


async def test_the_same_question_is_answered_from_the_cache() -> None:
    service, model = await _service(ANSWER)
    await service.ask("How many days of paid leave?")
    text, answer = await service.ask("  How many days of paid leave? ")
    assert (text, answer.cached, len(model.calls)) == ("You get 28 days [1].", "answer", 1)
    assert [c.document_id for c in answer.citations] == ["leave"]


async def test_no_cached_answer_outlives_an_update() -> None:
    service, model = await _service(ANSWER, Script(pieces=("Now 30 [1].",)))
    await service.ask("How many days of paid leave?")
    await service.write("leave", "Employees are entitled to 30 days of paid leave a year.")
    text, answer = await service.ask("How many days of paid leave?")
    assert (text, answer.cached) == ("Now 30 [1].", None)
    assert "30 days" in model.calls[1].prompt.messages[-1].content
    assert "28 days" not in model.calls[1].prompt.messages[-1].content


async def test_no_cached_answer_outlives_a_change_of_what_else_there_is() -> None:
    """Its own sources are as they were, but another document may say more."""
    service, _ = await _service(ANSWER)
    await service.ask("How many days of paid leave?")
    await service.write("other", "Something else.")
    _, answer = await service.ask("How many days of paid leave?")
    assert answer.cached is None


@pytest.mark.parametrize("caching", ["fill", "off"])
async def test_who_does_not_use_the_cache_gets_nothing_from_it(caching: Caching) -> None:
    service, model = await _service(ANSWER)
    service.serving = replace(service.serving, model=Cached(model, service.outputs, ttl=60, product="1"))
    await service.ask("How many days of paid leave?")
    _, answer = await service.ask("How many days of paid leave?", cache=caching)
    assert (answer.cached, len(model.calls)) == (None, 2)


async def test_who_asks_past_the_cache_leaves_nothing_in_it() -> None:
    service, model = await _service(ANSWER)
    service.serving = replace(service.serving, model=Cached(model, service.outputs, ttl=60, product="1"))
    await service.ask("How many days of paid leave?", cache="off")
    _, answer = await service.ask("How many days of paid leave?")
    assert (answer.cached, len(model.calls)) == (None, 2)


async def _change_rights(service: Service) -> dict[str, object]:
    return {"where": replace(ACME, groups=frozenset({"board"}))}


async def _new_revision(service: Service) -> dict[str, object]:
    await service.write("leave", TEXTS["leave"])
    return {}


@pytest.mark.parametrize("changed", [_change_rights, _new_revision])
async def test_a_kept_output_is_for_the_same_rights_on_the_same_evidence(
    changed: Callable[[Service], Awaitable[dict[str, object]]],
) -> None:
    """The words of the prompt are the same, letter by letter."""
    service, model = await _service(ANSWER)
    service.serving = replace(service.serving, model=Cached(model, service.outputs, ttl=60, product="1"))
    await service.ask("How many days of paid leave?")
    _, answer = await service.ask("How many days of paid leave?", **await changed(service))
    assert (answer.cached, len(model.calls)) == (None, 2)
    assert model.calls[0].prompt == model.calls[1].prompt


async def test_what_a_document_went_into_is_forgotten_with_it_answer_and_output_alike() -> None:
    service, model = await _service(ANSWER)
    service.serving = replace(service.serving, model=Cached(model, service.outputs, ttl=60, product="1"))
    for kept in (None, "answer"):  # Who asks for it next waits until it is kept.
        assert (await service.ask("How many days of paid leave?"))[1].cached == kept
    assert await service.outputs.forget(["acme/leave"]) == 2
    _, answer = await service.ask("How many days of paid leave?")
    assert (answer.cached, len(model.calls)) == (None, 2)


async def test_a_cached_answer_is_not_served_when_its_source_may_not_be_seen() -> None:
    """Even if the epoch did not move: the hit itself is checked, and so is the answer made in its stead."""
    service, model = await _service(ANSWER)
    await service.ask("How many days of paid leave?")
    del service.board.shown["leave"]
    with pytest.raises(SourceChanged):
        await service.ask("How many days of paid leave?")
    assert len(model.calls) == 2


async def test_another_tenant_gets_neither_text_nor_cached_answer() -> None:
    service, model = await _service(ANSWER)
    await service.ask("How many days of paid leave?")
    _, answer = await service.ask(
        "How many days of paid leave?", where=Filter(tenant="other", groups=frozenset())
    )
    assert (answer.cached, answer.citations, len(model.calls)) == (None, (), 1)


@pytest.mark.parametrize(
    "script",
    [
        Script(pieces=("You get 28 days [1].",), finish="length"),
        Script(pieces=("You get ",), error=StreamBroken("gone")),
    ],
    ids=["cut off", "broken"],
)
async def test_an_incomplete_answer_is_not_kept(script: Script) -> None:
    service, model = await _service(script, ANSWER)
    with suppress(StreamBroken):
        await service.ask("How many days of paid leave?")
    _, answer = await service.ask("How many days of paid leave?")
    assert (answer.cached, len(model.calls)) == (None, 2)


async def test_an_answer_is_not_kept_when_something_changed_meanwhile() -> None:
    service, model = await _service(ANSWER)
    async with aclosing(service.chat.ask(_question("How many days of paid leave?"))) as events:
        async for event in events:
            if isinstance(event, Token) and service.board.changes == 3:
                await service.write("other", "Something else.")
    assert isinstance(event, Answer)
    assert event.epoch is None
    _, answer = await service.ask("How many days of paid leave?")
    assert (answer.cached, len(model.calls)) == (None, 2)


async def test_an_answer_is_not_kept_when_something_changed_during_the_search() -> None:
    """The search may have been just too early for it."""
    service, _ = await _service(ANSWER)

    async def change() -> None:
        service.embedder.meanwhile = None
        service.board.changes += 1

    service.embedder.meanwhile = change
    _, first = await service.ask("How many days of paid leave?")
    _, again = await service.ask("How many days of paid leave?")
    assert (first.epoch, again.cached) == (None, None)


async def test_an_answer_is_kept_only_when_nothing_changed_since_the_collections_were_looked_at() -> None:
    """The look may be an earlier question's."""
    scripts = [Script(pieces=(f"{n} [1].",)) for n in range(4)]
    service, _ = await _service(*scripts)
    await service.ask("How many days of paid leave?")
    await service.write("roof", "Solar panels on the roof are inspected every autumn.")
    asked = "When are the solar panels inspected?"
    kept = [(await service.ask(asked))[1].cached for _ in range(3)]
    assert kept == [None, None, "answer"]


async def test_a_source_deleted_while_streaming_ends_the_answer_with_an_error() -> None:
    service, _ = await _service(ANSWER)
    seen: list[Event] = []
    with pytest.raises(SourceChanged):
        async with aclosing(service.chat.ask(_question("How many days of paid leave?"))) as events:
            async for event in events:
                seen.append(event)
                if isinstance(event, Token) and "leave" in service.board.shown:
                    service.delete("leave")
    assert not any(isinstance(event, Answer) for event in seen)


async def test_a_source_deleted_during_a_long_check_of_the_sentences_ends_the_answer_with_an_error() -> None:
    """The look at the sources that began before the check is too old by then."""
    service, _ = await _service(Script(pieces=("Staff get about a month off [1].",)))

    async def nothing() -> None:
        service.embedder.meanwhile = delete

    async def delete() -> None:
        service.embedder.meanwhile = None
        await asyncio.sleep(0.1)
        service.delete("leave")

    service.embedder.meanwhile = nothing  # That is the search; then comes the check.
    with pytest.raises(SourceChanged):
        await service.ask("How many days of paid leave?")


async def test_what_the_search_went_without_is_in_the_answer() -> None:
    service, _ = await _service(ANSWER)

    async def down() -> None:
        raise EmbedderUnavailable("down")

    service.embedder.meanwhile = down
    _, answer = await service.ask("How many days of paid leave?")
    assert "dense" in answer.degraded


async def test_a_model_that_is_down_is_replaced_and_the_answer_says_so() -> None:
    down = Scripted(Script(error=ModelUnavailable("down")), name="big")
    release = with_model(load_release(DEFAULT_RELEASE), "big")
    service = Service(Fallback([down, Extractive(None)]), release)
    for document_id, text in TEXTS.items():
        await service.write(document_id, text)
    text, answer = await service.ask("How many days of paid leave do employees get?")
    assert "28 days" in text
    assert answer.degraded == ("model:extractive",)
    _, again = await service.ask("How many days of paid leave do employees get?")
    assert again.cached is None


async def test_closing_the_answer_frees_the_model() -> None:
    service, model = await _service(Script(pieces=("a ",) * 50, pace=0.01))
    async with aclosing(service.chat.ask(_question("paid leave"))) as events:
        async for event in events:
            if isinstance(event, Token):
                assert model.running == 1
                break
    assert model.running == 0


def _pausing(service: Service) -> None:
    """Have every part of the service wait for some turns of the loop, so that there is a place to stop at."""

    def pausing(call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def paused(*args: object, **named: object) -> object:
            for _ in range(3):
                await asyncio.sleep(0)
            return await call(*args, **named)

        return paused

    parts: dict[object, Sequence[str]] = {
        service.board: ("epoch", "look"),
        service.outputs: ("get", "put", "available"),
        service.store: ("search",),
        service.embedder: ("embed",),
    }
    for part, names in parts.items():
        for name in names:
            setattr(part, name, pausing(getattr(part, name)))


@pytest.mark.asyncio(loop_scope="function")  # In the loop of all tests others' tasks come and go.
async def test_wherever_the_first_who_asks_is_stopped_nothing_is_held_and_who_follows_is_answered() -> None:
    """After every second turn of the loop, until it has its answer."""
    stopped, after_turns = True, 0
    while stopped:
        service, model = await _service(ANSWER)
        _pausing(service)
        house = Admission(max_running=1, max_waiting=4)
        question = _question("How many days of paid leave?")
        turn = partial(house.turn, "acme", question.deadline)

        async def answered(asked: Service, turn: TakeTurn, question: Question = question) -> str:
            async with aclosing(asked.chat.ask(question, turn)) as events:
                return [event.text async for event in events if isinstance(event, Answer)][-1]

        tasks = asyncio.all_tasks()
        first, second = (asyncio.create_task(answered(service, turn)) for _ in range(2))
        for _ in range(after_turns):
            await asyncio.sleep(0)
        stopped, after_turns = first.cancel(), after_turns + 2
        assert await asyncio.wait_for(second, 10) == "You get 28 days [1]."
        await asyncio.wait((first,))
        assert first.cancelled() == stopped
        while service.chat._keeping:
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks
        assert (model.running, house.running, house.waiting) == (0, 0, 0)
        assert await answered(service, turn) == "You get 28 days [1]."
    assert after_turns > 40


async def test_a_follow_up_is_searched_as_a_question_of_its_own() -> None:
    service, model = await _service(Script(pieces=("Which error does the blocked pump display?",)), ANSWER)
    history = (Message("user", "Tell me about the pump"), Message("assistant", "It may be blocked."))
    events = [e async for e in service.chat.ask(_question("And what does it show then?", *history))]
    sources = next(e for e in events if isinstance(e, Sources))
    assert max(sources.hits, key=lambda hit: hit.score).chunk.document_id == "pump"
    said = [m.content for m in model.calls[1].prompt.messages]
    assert any("It may be blocked." in content for content in said)
    assert "And what does it show then?" in said[-1]


BEFORE = (Message("user", "How many days?"), Message("assistant", "Of what?"))


async def test_a_follow_up_that_another_model_made_to_stand_alone_says_so_and_is_not_kept() -> None:
    """The model came back for the answer itself, and yet what it answers from was searched for without it."""
    big = Scripted(Script(error=ModelUnavailable("down")), ANSWER, name="big")
    service = Service(Fallback([big, Extractive(None)]), with_model(load_release(DEFAULT_RELEASE), "big"))
    for document_id, text in TEXTS.items():
        await service.write(document_id, text)
    asked = _question("And of paid leave?", *BEFORE)
    for _ in range(2):
        answer = [event async for event in service.chat.ask(asked)][-1]
        assert isinstance(answer, Answer)
        assert (answer.model, answer.cached) == ("big", None)
        big.calls.clear()
        assert answer.degraded == ("model:extractive",)


async def test_under_load_no_spared_model_is_asked_to_make_a_follow_up_stand_alone() -> None:
    @asynccontextmanager
    async def crowded() -> AsyncIterator[Turn]:
        yield Turn(1.0)

    big = Scripted(ANSWER, name="big")
    service = Service(Fallback([big, Extractive(None)]), with_model(load_release(DEFAULT_RELEASE), "big"))
    await service.write("leave", TEXTS["leave"])
    asked = _question("And of paid leave?", *BEFORE)
    answer = [event async for event in service.chat.ask(asked, crowded)][-1]
    assert isinstance(answer, Answer)
    assert answer.degraded == ("model:extractive", "model:none")
    assert big.calls == []


async def test_passages_that_no_longer_hold_leave_room_for_those_that_do() -> None:
    service, _ = await _service(ANSWER)
    old = [f"In season {n} paid leave was {n} days." for n in range(20, 30)]
    await service.write("Leave 2025 (superseded)", *old)
    await service.write("Leave 2026", "Our new entitlement, whatever the season, is 31 days of leave.")

    async def documents(question: str) -> list[str]:
        events = [event async for event in service.chat.ask(_question(question))]
        sources = next(event for event in events if isinstance(event, Sources))
        return [hit.chunk.document_id for hit in sources.hits]

    found = await documents("In which season was paid leave 24 days?")
    assert "Leave 2026" in found
    assert found.count("Leave 2025 (superseded)") >= 2
    found = await documents("In which season of 2025 was paid leave 24 days?")
    assert "Leave 2026" not in found


async def test_a_past_deadline_is_an_error_before_anything_is_said() -> None:
    service, _ = await _service(ANSWER)
    with pytest.raises(DeadlineExceeded):
        await service.ask("paid leave", deadline=deadline.after(-1))


async def test_sampling_of_the_request_reaches_the_model_but_not_beyond_the_release() -> None:
    service, model = await _service(ANSWER)
    await service.ask("paid leave", max_tokens=100_000, temperature=0.7, stop=("x",))
    sampling = model.calls[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.stop) == (512, 0.7, ("x",))


async def test_a_model_thinks_first_where_the_release_says_so() -> None:
    service, model = await _service(ANSWER)
    await service.ask("paid leave")
    body = service.release.body
    thinking = body.model_copy(update={"sampling": body.sampling.model_copy(update={"thinking": True})})
    service.serving = replace(service.serving, release=replace(service.release, body=thinking))
    await service.ask("paid leave again")
    assert [one.sampling.thinking for one in model.calls] == [False, True]


async def test_each_sentence_is_told_what_its_source_does_for_it() -> None:
    service, _ = await _service(
        Script(
            pieces=("Employees are entitled to 28 days of paid leave a year [1]. ", "It is 31 days [1]. Ask.")
        )
    )
    events = [e async for e in service.chat.ask(_question("How many days of paid leave?"))]
    answer = events[-1]
    assert isinstance(answer, Answer)
    told = [e for e in events if isinstance(e, Support)]
    assert tuple(told) == answer.support
    assert [one.verdict for one in told] == ["supported", "unsupported", "uncited"]
    place = told[0].spans[0]
    assert (place.document_id, TEXTS["leave"][place.start : place.end]) == ("leave", TEXTS["leave"])
    assert answer.text[told[1].start : told[1].end] == "It is 31 days [1]."


async def test_a_kept_answer_keeps_its_verdicts() -> None:
    service, _ = await _service(ANSWER)
    _, first = await service.ask("How many days of paid leave?")
    _, again = await service.ask("How many days of paid leave?")
    assert again.cached == "answer"
    assert again.support == first.support != ()


async def test_a_check_that_hangs_holds_back_no_text_and_is_declared() -> None:
    service, _ = await _service(Script(pieces=("Staff get about a month off [1]. ", "So it is.")))
    service.embedder.hangs = True
    said, answer = await service.ask("How many days of paid leave?", deadline=deadline.after(3))
    assert said == "Staff get about a month off [1]. So it is."
    assert "support" in answer.degraded
    assert [one.sentence for one in answer.support] == []


async def test_text_leaves_by_whole_sentences_where_the_release_says_so(tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    file.write_text(DEFAULT_RELEASE.read_text() + '\n[answer]\nbuffer = "sentence"\n')
    model = Scripted(Script(pieces=("It is ", "28 days [1", "]. The re", "st is ", "later [1].")))
    service = Service(model, with_model(load_release(file), model.name))
    await service.write("leave", TEXTS["leave"])
    events = [e async for e in service.chat.ask(_question("How many days of paid leave?"))]
    said = [e.text for e in events if isinstance(e, Token)]
    assert said == ["It is 28 days [1]. ", "The rest is later [1]."]


async def test_passages_are_in_the_order_of_documents_whatever_their_scores() -> None:
    service, model = await _service(ANSWER)
    for question in ("When are solar panels inspected?", "What does E-1042 of the pump mean?"):
        await service.ask(question)
    first, second = (call.prompt.messages[-1].content.partition("</passages>")[0] for call in model.calls)
    assert first == second


async def test_without_any_model_the_best_passages_are_the_answer_and_that_is_declared() -> None:
    service, _ = await _service(Script(error=ModelUnavailable("down")))
    text, answer = await service.ask("Wie viele paid leave days gibt es in der Firma?")
    assert "28 days of paid leave" in text
    assert text.startswith("Zurzeit kann kein Modell antworten.")
    assert "leave" in {citation.document_id for citation in answer.citations}
    assert (answer.model, "model:none" in answer.degraded) == ("none", True)
    _, again = await service.ask("Wie viele paid leave days gibt es in der Firma?")
    assert again.cached is None


async def test_a_request_that_no_model_takes_is_an_error() -> None:
    service, _ = await _service(Script(error=ModelRejected("no such field")))
    with pytest.raises(ModelRejected):
        await service.ask("How many days of paid leave?")


async def test_what_is_not_in_the_documents_is_said_in_the_language_of_the_question() -> None:
    service = Service(Extractive(None))
    await service.write("leave", TEXTS["leave"])
    said, answer = await service.ask("Wer hat die Pyramiden von Gizeh gebaut?")
    assert said == "Die Dokumente beantworten diese Frage nicht."
    assert (answer.answered, answer.support) == (False, ())


async def test_from_an_index_that_lost_rows_no_model_says_that_the_documents_hold_nothing() -> None:
    service, model = await _service(ANSWER, ANSWER)
    index = replace(service.serving.index, lost=lambda: True)
    service.serving = replace(service.serving, index=index)
    for _ in range(2):
        _, answer = await service.ask("Wie viele Tage Urlaub gibt es im Jahr?")
        assert (answer.degraded, answer.answered, answer.cached) == (("index",), True, None)
    assert [call.cache for call in model.calls] == ["off", "off"]
    asked = model.calls[0].prompt.messages[-1].content
    german = LANGUAGES["de"]
    assert (german.unsearched in asked, german.not_found in asked) == (True, False)

    service.serving = replace(service.serving, model=Extractive(None))
    said, answer = await service.ask("Wer hat die Pyramiden von Gizeh gebaut?")
    assert (said, answer.answered, answer.support) == (german.unsearched, False, ())
    request = SummaryRequest(
        where=ACME,
        deadline=deadline.after(20),
        focus="Wer hat die Pyramiden gebaut?",
        document_ids=("leave",),
    )
    *_, summary = [event async for event in service.summaries.summarize(request)]
    assert isinstance(summary, Summary)
    assert (summary.text, summary.degraded) == (german.unsearched, ("index", "model:extractive"))


async def test_the_answer_is_in_the_language_of_the_question_where_the_sources_have_both() -> None:
    service = Service(Extractive(None))
    await service.write("de", "Der Urlaub beträgt 28 Tage im Jahr. Das ist die Regel für alle.")
    await service.write("en", "The Urlaub of all staff is 28 Tage per Jahr, and that is the rule.")
    said, _ = await service.ask("Wie viele Tage Urlaub sind es im Jahr?")
    assert "beträgt" in said
    assert "staff" not in said


# Summaries.


async def _summary(service: Service, **what: object) -> tuple[list[Progress], Summary]:
    given: dict[str, object] = {"where": ACME, "deadline": deadline.after(20), **what}
    request = SummaryRequest(**given)  # type: ignore[arg-type]
    events = [event async for event in service.summaries.summarize(request)]
    assert isinstance(events[-1], Summary)
    return [e for e in events if isinstance(e, Progress)], events[-1]


def _small(folder: Path, characters: int = 300) -> Release:
    file = folder / "release.toml"
    file.write_text(DEFAULT_RELEASE.read_text() + f"\n[context]\nmax_characters = {characters}\n")
    return load_release(file)


async def test_a_long_document_is_summarized_in_parts_with_its_own_passages_cited(tmp_path: Path) -> None:
    service = Service(Extractive(None), _small(tmp_path))
    sentences = [
        f"Station {n} measures rain number {n} near the river bank every morning." for n in range(12)
    ]
    await service.write("stations", *sentences)
    progress, summary = await _summary(service, document_ids=("stations",), max_words=60)
    assert progress[-1].done == progress[-1].total > 1
    assert summary.citations
    for cited in summary.citations:
        assert cited.text in sentences
        assert cited.text.rstrip(".") in summary.text
    assert 0 < summary.coverage <= 1


async def test_text_of_the_request_is_summarized_by_its_own_passages() -> None:
    service = Service(Extractive(None))
    text = "The gateway failed at nine. The cause was an expired certificate. It was renewed by ten."
    _, summary = await _summary(service, text=text, max_words=40)
    assert summary.citations
    assert all(text[c.span.start : c.span.end] == c.text for c in summary.citations)


async def test_what_may_not_be_seen_cannot_be_summarized() -> None:
    service, _ = await _service(ANSWER)
    with pytest.raises(NothingToSummarize):
        await _summary(service, document_ids=("secret",))


async def test_a_document_deleted_meanwhile_ends_the_summary_with_an_error() -> None:
    service, _ = await _service(Script(pieces=("Leave is 28 days [1].",)))
    request = SummaryRequest(where=ACME, deadline=deadline.after(20), document_ids=("leave",))
    with pytest.raises(SourceChanged):
        async with aclosing(service.summaries.summarize(request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    service.delete("leave")


async def test_closing_a_summary_frees_every_slot_of_the_model(tmp_path: Path) -> None:
    model = Scripted(Script(pieces=("a ",) * 100, pace=0.01))
    service = Service(model, with_model(_small(tmp_path), model.name))
    await service.write(
        "long", *(f"Part {n} of a long text that goes on and on and on. " * 4 for n in range(9))
    )
    request = SummaryRequest(where=ACME, deadline=deadline.after(20), document_ids=("long",))
    task = asyncio.create_task(anext(service.summaries.summarize(request)))
    while model.running < 2:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.running == 0


async def test_after_an_update_only_what_changed_is_summarized_again(tmp_path: Path) -> None:
    model = Scripted(Script(pieces=("It rains there [1].",)))
    release = with_model(_small(tmp_path, 1_200), model.name)
    service = Service(model, release)
    service.serving = replace(service.serving, model=Cached(model, service.outputs, ttl=60, product="1"))
    texts = [
        f"Station {n} measures rain number {n * 7} near the river bank every morning." for n in range(160)
    ]
    await service.write("stations", *texts)
    await _summary(service, document_ids=("stations",))
    before = len(model.calls)
    assert before > 8
    await _summary(service, document_ids=("stations",))
    assert len(model.calls) == before
    await service.write("stations", *texts[:70], "A new station was built on the hill.", *texts[70:])
    _, summary = await _summary(service, document_ids=("stations",))
    assert 1 <= len(model.calls) - before <= 5
    assert {citation.chunk_id.partition("-")[0] for citation in summary.citations} == {"2"}


async def test_a_kept_part_of_a_summary_is_not_served_to_other_rights(tmp_path: Path) -> None:
    model = Scripted(Script(pieces=("It rains there [1].",)))
    service = Service(model, with_model(_small(tmp_path), model.name))
    service.serving = replace(service.serving, model=Cached(model, service.outputs, ttl=60, product="1"))
    await service.write("stations", *(f"Station {n} measures rain near the river bank." for n in range(12)))
    await _summary(service, document_ids=("stations",))
    before = len(model.calls)
    await _summary(service, document_ids=("stations",), where=replace(ACME, groups=frozenset({"board"})))
    assert len(model.calls) == 2 * before


async def test_a_summary_that_goes_on_and_on_is_ended_near_its_length() -> None:
    service, model = await _service(Script(pieces=("The leave is long [1]. ",) * 100))
    _, summary = await _summary(service, document_ids=("leave",), max_words=40)
    assert 40 <= len(summary.text.replace(" [1]", "").split()) <= 48
    assert model.running == 0


async def test_a_summary_in_another_language_than_asked_for_says_so() -> None:
    service = Service(Extractive(None))
    await service.write("leave", TEXTS["leave"] + " This is the rule for all of them and it is not new.")
    _, summary = await _summary(service, document_ids=("leave",), language="de")
    assert summary.degraded == ("language",)
    _, summary = await _summary(service, document_ids=("leave",), language="en")
    assert summary.degraded == ()


async def test_a_summary_of_two_languages_is_in_the_one_asked_for() -> None:
    service = Service(Extractive(None))
    await service.write(
        "both", "Der Urlaub ist 28 Tage lang und das gilt für alle.", "The leave is for all of us."
    )
    _, summary = await _summary(service, document_ids=("both",), language="de")
    assert "Urlaub" in summary.text
    assert "leave" not in summary.text


async def test_the_sentences_of_a_summary_are_checked_too() -> None:
    service, _ = await _service(Script(pieces=("Leave is 31 days [1].",)))
    _, summary = await _summary(service, document_ids=("leave",))
    assert [one.verdict for one in summary.support] == ["unsupported"]
