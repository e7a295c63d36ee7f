from __future__ import annotations

import pytest

from ingestion.errors import Quarantined
from ingestion.parse import parse
from ingestion.types import Parsed

PAGE = """\
.. _top:

=====
Leave
=====

Staff get *25* days, see :ref:`the policy <policy>`, :class:`~acme.Leave` and `the web <http://x.test>`_.

.. toctree::
   :maxdepth: 2

   elsewhere

Carry-over
==========

* one
* two

  1. deeper

term
    meaning

.. note:: Ask early.

.. versionadded:: 1.2
   Half *days*.

.. py:function:: leave(days)
   :module: acme

   Takes leave.

.. code-block:: python

   x = 1

   y = 2

Prices
------

+-------+-------+
| Plan  | Price |
+=======+=======+
| Basic | 10    |
+-------+-------+
| none          |
+-------+-------+

.. |firm| replace:: Acme

By |firm| [1]_.

.. [1] A footnote.
"""


def outline(parsed: Parsed) -> list[tuple[str, int, str]]:
    return [(b.kind, b.level, parsed.text[b.span.start : b.span.end]) for b in parsed.blocks]


def read(text: str) -> Parsed:
    return parse(text.encode(), "a.rst", None)


def test_structure_is_that_of_the_page_and_markup_is_gone() -> None:
    assert outline(read(PAGE)) == [
        ("heading", 1, "Leave"),
        ("paragraph", 0, "Staff get 25 days, see the policy, acme.Leave and the web."),
        ("heading", 2, "Carry-over"),
        ("list", 0, "- one\n- two\n  1. deeper"),
        ("list", 0, "- term\n  meaning"),
        ("paragraph", 0, "Note:"),
        ("paragraph", 0, "Ask early."),
        ("paragraph", 0, "New in version 1.2 Half days."),
        ("paragraph", 0, "leave(days)"),
        ("paragraph", 0, "Takes leave."),
        ("code", 0, "x = 1\n\ny = 2"),
        ("heading", 3, "Prices"),
        ("table", 0, "| Plan | Price |\n| --- | --- |\n| Basic | 10 |\n| none | none |"),
        ("paragraph", 0, "By Acme 1."),
        ("paragraph", 0, "[1] A footnote."),
    ]
    assert read(PAGE).title == "Leave"


@pytest.mark.parametrize(
    "directive",
    [
        ".. include:: /etc/passwd",
        ".. literalinclude:: /etc/passwd",
        ".. raw:: html\n   :file: /etc/passwd",
        ".. csv-table:: t\n   :file: /etc/passwd",
        ".. figure:: /etc/passwd\n   :figwidth: image",
    ],
)
def test_no_file_is_read(directive: str) -> None:
    text = read(f"Kept\n\n{directive}\n").text
    assert "root" not in text
    assert text.startswith("Kept")


def test_what_stands_for_a_file_says_nothing() -> None:
    assert read("Kept\n\n.. include:: other.txt\n\n.. raw:: html\n\n   <b>x</b>\n").text == "Kept"


def test_broken_markup_keeps_its_words() -> None:
    text = read(
        "Title\n==\n\n*open and :role:`x and |gone|\n\n.. unknown:: a *b\n\n   inside\n\n====== =\nbad"
    ).text
    assert {"Title", "open", "inside", "bad"} <= set(text.replace("*", "").split())


def test_a_page_of_comments_is_empty() -> None:
    with pytest.raises(Quarantined) as caught:
        read(".. a comment\n")
    assert caught.value.reason == "empty"
