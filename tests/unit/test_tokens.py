"""Whether a prompt fits the model's window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from llm.errors import ContextTooLong, ModelUnavailable
from llm.fallback import Fallback
from llm.scripted import Script, Scripted
from llm.tokens import Fitted, Tokens, estimate
from llm.types import Message
from tests.calls import call, drain


class Words:
    """A server that counts words; `asked` is how often."""

    def __init__(self, window: int | None, *, down: bool = False) -> None:
        self._window = window
        self.down = down
        self.asked = 0

    async def window(self) -> int | None:
        if self.down:
            raise ModelUnavailable("down")
        return self._window

    async def count(self, messages: Sequence[Message]) -> int | None:
        self.asked += 1
        if self.down:
            raise ModelUnavailable("down")
        return sum(len(message.content.split()) for message in messages)


@pytest.mark.parametrize(
    "text", ["", "Leave", "Grüße aus Köln", "休暇は何日ですか", "a b c " * 100, "\ud800"]
)
def test_an_estimate_is_never_below_a_token_for_three_ascii_characters_or_another_character(
    text: str,
) -> None:
    others = sum(not character.isascii() for character in text)
    assert estimate(text) >= (len(text) - others) / 3 + others


async def test_a_prompt_that_clearly_fits_is_sent_without_asking() -> None:
    server = Words(4096)
    model = Fitted(Scripted(Script(pieces=("yes",))), Tokens([server]))
    assert (await drain(model, call("How many days?", tokens=100)))[0].text == "yes"
    assert server.asked == 0


async def test_a_long_prompt_that_fits_by_the_models_own_count_is_sent_and_counted_once() -> None:
    server = Words(1000)
    model = Fitted(Scripted(Script(pieces=("yes",))), Tokens([server]))
    long = call("extraordinarily " * 500, tokens=100)
    for _ in range(3):
        assert (await drain(model, long))[0].text == "yes"
    assert server.asked == 1


async def test_a_prompt_that_does_not_fit_is_refused_before_it_is_sent() -> None:
    scripted = Scripted()
    model = Fitted(scripted, Tokens([Words(1000)]))
    with pytest.raises(ContextTooLong) as caught:
        await drain(model, call("word " * 950, tokens=100))
    assert (caught.value.tokens, caught.value.limit) == (1051, 1000)
    assert scripted.calls == []


async def test_a_model_with_a_longer_window_answers_instead() -> None:
    short = Fitted(Scripted(name="short"), Tokens([Words(100)]))
    long = Scripted(Script(pieces=("yes",)), name="long")
    said = await drain(Fallback([short, long]), call("word " * 200, tokens=10))
    assert said[-1].model == "long"


async def test_a_server_that_tells_no_window_or_is_down_gets_the_prompt() -> None:
    for server in (Words(None), Words(100, down=True)):
        model = Fitted(Scripted(Script(pieces=("yes",))), Tokens([server]))
        assert (await drain(model, call("word " * 5000)))[0].text == "yes"


async def test_another_server_is_asked_when_the_first_is_down() -> None:
    model = Fitted(Scripted(), Tokens([Words(100, down=True), Words(100)]))
    with pytest.raises(ContextTooLong):
        await drain(model, call("word " * 5000))


async def test_as_many_passages_fit_as_the_tokenizer_says() -> None:
    server = Words(4096)
    tokens = Tokens([server])
    passages = ["one two three four"] * 5
    assert await tokens.fitting(passages, 1000) == 5
    assert server.asked == 0
    assert await tokens.fitting(passages, 12) == 3
    assert await tokens.fitting(passages, 3) == 0


async def test_without_a_tokenizer_the_estimate_decides() -> None:
    tokens = Tokens([Words(None, down=True)])
    assert await tokens.fitting(["x" * 300] * 3, 250) == 2


async def test_spared_models_are_left_out_but_never_the_last() -> None:
    chain = Fallback([Scripted(name="large"), Scripted(name="small"), Scripted(name="extractive")])
    for spare, name in ((0, "large"), (1, "small"), (2, "extractive"), (9, "extractive")):
        assert (await drain(chain, replace(call(), spare=spare)))[-1].model == name
