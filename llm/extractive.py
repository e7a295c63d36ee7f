"""The model that is always there: it answers and summarizes with sentences of the passages.

It reads the rendered prompt as a served model would, not the data behind it: a prompt that loses the
passages makes it say that the documents do not answer. It invents nothing; each sentence it quotes is
followed by the number of its passage.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

from llm import digest, quoting
from llm.errors import ModelTimeout
from llm.followup import TURNS, Reading, joined, readings
from llm.language import code_of, detect, not_found, unsearched
from llm.prompts import parse_passages
from llm.quoting import Quote, Relevance, Scores
from llm.types import Call, Delta, Message, Scorer

NAME = "extractive"
WORDS = 200
"""Words of a summary whose prompt names no number."""
WORDS_OF_A_PIECE = 6
"""A summary takes no more pieces than one for so many of its words."""

_NUMBERS = re.compile(r"\[(\s*\d[\d\s,]*)\]")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_ASKED = re.compile(r"<(question|focus|history|language)>.*</\1>", re.DOTALL)
_PASSAGES = re.compile(r"<passages?\b[^<]*|</passages?>")


@dataclass(frozen=True, slots=True)
class _Request:
    """What the last user message holds: passages, and what is asked, in tags. Nothing in a passage can look
    like a tag, since its text is escaped; what the user wrote is cut out before passages are looked for."""

    message: str
    turns: tuple[str, ...] = ()

    @property
    def quotes(self) -> list[Quote]:
        return quoting.quotes(parse_passages(_ASKED.sub("", self.message)))

    @property
    def question(self) -> str:
        """Between its tags; in a prompt without them the last line that is not in a passage."""
        if "<question>" in self.message:
            return self.tagged("question")
        lines = _PASSAGES.sub("", self.message).splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    @property
    def searched(self) -> bool:
        """Whether what the prompt has said when nothing is found is that nothing is there."""
        return not unsearched(_PASSAGES.sub("", _ASKED.sub("", self.message)))

    def tagged(self, tag: str) -> str:
        return self.message.partition(f"<{tag}>")[2].rpartition(f"</{tag}>")[0].strip()


class Extractive:
    """`score` is an embedder's similarity; without it words alone decide."""

    def __init__(self, score: Scorer | None = None) -> None:
        self._score = score

    @property
    def name(self) -> str:
        return NAME

    async def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        try:
            async with asyncio.timeout(call.timeout):
                request = _Request(_last_user(call.prompt.messages), _earlier(call.prompt.messages))
                said = await self._said(call.prompt.name, request, call.scope.tenant)
        except TimeoutError as error:
            raise ModelTimeout(f"Model {NAME!r} was not done within the time given.") from error
        asked = sum(_tokens(message.content) for message in call.prompt.messages)
        text, cut = _limited(" ".join(said), call.sampling.max_tokens, call.sampling.stop)
        for piece in _pieces(text, said):
            yield Delta(text=piece, model=NAME)
        yield Delta(
            text="",
            model=NAME,
            finish="length" if cut else "stop",
            prompt_tokens=asked,
            output_tokens=_tokens(text),
        )

    async def _said(self, purpose: str, request: _Request, tenant: str) -> list[str]:
        """What to say, sentence by sentence."""
        if purpose == "rewrite":
            return [joined(request.tagged("history"), request.question)]
        found = await asyncio.to_thread(lambda: request.quotes)
        if purpose == "summarize":
            return await self._summary(request, found, tenant)
        return await self._answer(request, found, tenant)

    async def _answer(self, request: _Request, found: Sequence[Quote], tenant: str) -> list[str]:
        for reading in readings(request.turns, request.question):
            spoken = quoting.in_language(detect(reading.question), found)
            current = quoting.in_force(reading.whole, spoken)
            for among in (current, spoken) if len(current) < len(spoken) else (spoken,):
                if chosen := await self._chosen(reading, among, tenant):
                    return _cited(among, chosen)
        return [not_found(request.question, searched=request.searched)]

    async def _chosen(self, reading: Reading, found: Sequence[Quote], tenant: str) -> list[int]:
        reading = replace(reading, question=await asyncio.to_thread(quoting.spelled, reading.question, found))
        relevance = await asyncio.to_thread(Relevance, reading, found)
        scores = await self._scores(reading.whole, found, relevance, tenant, relevance.candidates())
        chosen = quoting.choose(relevance, scores)
        if chosen and reading.topic and not relevance.tells(chosen[0]):
            return chosen if await self._added(reading, found[chosen[0]], tenant) >= quoting.ADDED else []
        return chosen

    async def _added(self, reading: Reading, quote: Quote, tenant: str) -> float:
        """How much nearer the quote is to the question with its topic than to the topic alone."""
        if self._score is None:
            return 0.0
        topic = " ".join(reading.topic)
        alone, whole = [
            await self._score(tenant, text, [quote.in_context]) for text in (topic, reading.whole)
        ]
        return float(whole[0]) - float(alone[0])

    async def _summary(self, request: _Request, found: Sequence[Quote], tenant: str) -> list[str]:
        focus, language = request.tagged("focus"), code_of(request.tagged("language"))
        most = int(words) if (words := request.tagged("words")).isdecimal() else WORDS
        found = quoting.in_language(language, found)
        near = await self._near(focus, found, tenant, most) if focus else None
        if not found or (focus and near is None):
            return [not_found(focus, language, searched=request.searched)]
        chosen = await asyncio.to_thread(digest.choose, found, most, near)
        return _cited(found, chosen)

    async def _near(
        self, focus: str, found: Sequence[Quote], tenant: str, words: int
    ) -> Sequence[float] | None:
        """How far each quote covers the focus; None when none has to do with it."""
        relevance = await asyncio.to_thread(Relevance, Reading(focus), found)
        enough = max(quoting.CANDIDATES, words // WORDS_OF_A_PIECE)
        scores = await self._scores(focus, found, relevance, tenant, relevance.candidates(enough, behind=1.0))
        return scores.each if relevance.touched(scores) else None

    async def _scores(
        self,
        question: str,
        found: Sequence[Quote],
        relevance: Relevance,
        tenant: str,
        places: Sequence[int],
    ) -> Scores:
        if self._score is None or not found:
            return Scores(relevance.plain())
        similarities = await self._score(tenant, question, [found[at].in_context for at in places])
        known = dict(zip(places, map(float, similarities), strict=True))
        return Scores(relevance.blended(known), max(known.values()))


@lru_cache(maxsize=1)
def version() -> str:
    """The first 12 hex digits of a digest of its sources: what was kept of one that said other things is not
    what this one says, whatever the product calls itself."""
    sources = sorted(
        (one.name, one.read_bytes()) for one in resources.files("llm").iterdir() if one.name.endswith(".py")
    )
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:12]


def guessed(messages: Sequence[Message]) -> str:
    """What a prompt is for, when only its messages are known."""
    last = _last_user(messages)
    return "rewrite" if "<history>" in last else "summarize" if "</words>" in last else "answer"


def _last_user(messages: Sequence[Message]) -> str:
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


def _earlier(messages: Sequence[Message]) -> tuple[str, ...]:
    """What the user said before, as far back as a follow-up looks."""
    before = [m for m in messages if m.role != "system"][:-1]
    return tuple(m.content for m in before[-TURNS:] if m.role == "user")


def _cited(found: Sequence[Quote], chosen: Sequence[int]) -> list[str]:
    return [_marked(text, number) for number, text in quoting.spoken(found, chosen)]


def _marked(text: str, number: int) -> str:
    """A quoted sentence with its marker. Numbers in brackets in the text itself are no markers of ours."""
    quoted = _NUMBERS.sub(r"(\1)", text).rstrip()
    end = "" if re.search(r"[.!?…。！？][\"'”’)\]]*(?:\(\d{1,3}\))*$", quoted) else "."
    return f"{quoted.rstrip(':;,')}{end} [{number}]"


def _limited(text: str, tokens: int, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to a stop string, and to the number of tokens; whether the latter cut it off."""
    ends = [at for at in (text.find(word) for word in stop if word) if at >= 0]
    text = text[: min(ends)] if ends else text
    found = list(_TOKEN.finditer(text))
    return (text[: found[tokens - 1].end()], True) if len(found) > tokens else (text, False)


def _pieces(text: str, said: Sequence[str]) -> list[str]:
    """The text in the sentences that it was made of."""
    pieces, at = [], 0
    for sentence in said:
        pieces.append(text[at : at + len(sentence) + 1])
        at += len(sentence) + 1
    return [piece for piece in pieces if piece]


def _tokens(text: str) -> int:
    """Words and punctuation marks; this model has no tokenizer."""
    return len(_TOKEN.findall(text))
