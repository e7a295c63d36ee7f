"""A follow-up question joined with what the conversation was about, without a model.

A question that leans on what came before says so by a pronoun or by being short. It gets the words that
matter from the user's own turns, the latest first; any other question is left as it is.
"""

from __future__ import annotations

import re

from llm.terms import terms, words

MOST = 8
"""Words that are added."""
SHORT = 3
"""Meaningful words of a question that stands on its own."""

_PRONOUNS = "it its they them their this that these those there then he she him her his one ones same"
_LEANS = frozenset(_PRONOUNS.split())
_TURN = re.compile(r"^(user|assistant): ", re.MULTILINE)


def joined(history: str, question: str) -> str:
    """The question, followed by words of the history where it needs them. One line."""
    question = " ".join(question.split())
    meant = set(terms(question))
    if len(meant) >= SHORT and not _LEANS & set(words(question)):
        return question
    added: dict[str, str] = {}
    for turn in reversed(_turns(history)):
        for word in re.findall(r"\w[\w.-]*\w|\w", turn):
            stems = terms(word)
            if stems and not meant & set(stems):
                added.setdefault(stems[0], word)
    return " ".join([question, *list(added.values())[:MOST]])


def _turns(history: str) -> list[str]:
    """What the user said, in order; all of it where no line says who spoke."""
    parts = _TURN.split(history)
    said = [text for role, text in zip(parts[1::2], parts[2::2], strict=True) if role == "user"]
    return said or [history]
