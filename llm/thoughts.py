"""What a model thinks before it answers, told apart from the answer, which alone goes on.

A server with a parser for its model sends thoughts in a field of their own. Without one they come before
the answer, between `<think>` and `</think>` (DeepSeek R1, Qwen3 and most others), or, where the model's
template has opened them in the prompt, up to `</think>` alone.
"""

from __future__ import annotations

OPEN = "<think>"
CLOSE = "</think>"


class Thoughts:
    """Of one output. `expected`: the model was asked to think, so that thoughts may begin without a tag; then
    text is held until they end, or until it is known that there are none in it."""

    def __init__(self, *, expected: bool) -> None:
        self._expected = expected
        self._held = ""
        self._inside = False
        self._over = False
        self._said = False
        self.any = False
        """Whether the model has thought, as far as can be known."""

    @property
    def begun(self) -> bool:
        """Whether the model has said anything, thought or not."""
        return self.any or self._over or bool(self._held)

    def apart(self) -> None:
        """A thought has come in a field of its own: then none comes in the text."""
        self.any = True
        self._expected = False

    def feed(self, text: str) -> str:
        """Take a piece of the output; return what of the answer may go on."""
        if self._said:
            return text
        if self._over:
            return self._answer(text)
        self._held += text
        start = self._held.lstrip()
        if not self._inside and start.startswith(OPEN):
            self._inside = self.any = True
        if self._inside or (self._expected and not OPEN.startswith(start)):
            return self._awaited()
        if OPEN.startswith(start):
            return ""
        self._over = self._said = True
        return self._held

    def finish(self, *, cut: bool = False) -> str:
        """The output has ended: what was held and turned out to be the answer. One that was cut off may not
        have come to it."""
        if self._inside or self._over:
            return ""
        if cut and self._expected:
            self.any = bool(self._held)
            return ""
        return self._held

    def _awaited(self) -> str:
        """What follows the end of the thoughts, if that has come."""
        thought, end, answer = self._held.partition(CLOSE)
        if end:
            self._over = self.any = True
            return self._answer(answer)
        if self._inside:
            self._held = thought[-len(CLOSE) :]
        return ""

    def _answer(self, text: str) -> str:
        """Without the empty lines between thoughts and answer."""
        text = text.lstrip()
        self._said = bool(text)
        return text
