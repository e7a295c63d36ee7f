"""A place in a document is shown as its extracted text has it, put together from passages."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from app import excerpts
from eval.inprocess import EVERYTHING, InProcess, Text
from ingestion.chunk import chunk
from ingestion.errors import NotFound
from ingestion.parse import parse
from ingestion.parse.builder import table_rows
from ingestion.types import Block, Parsed
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.search import Index
from retrieval.types import Span
from tests.passages import INDEX

ROWS = [["Model", "Price"], *([f"pump {n}", f"{n} euros"] for n in range(60))]
SPEC = replace(INDEX, dimension=384, chunk_tokens=40)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEmbedder:
    folder = find_model("all-MiniLM-L6-v2", None)
    return OpenVinoEmbedder.load(folder, tmp_path_factory.mktemp("openvino"), "all-MiniLM-L6-v2")


def _table() -> Parsed:
    text = table_rows(ROWS)
    names = Span(0, text.index("| pump 0"))
    block = Block(kind="table", span=Span(0, len(text)), header=names)
    return Parsed(title=None, text=text, blocks=(block,))


def _prose() -> Parsed:
    parts = [f"Item {n} is kept in hall {n % 7}, and nobody moves it." for n in range(150)]
    text = "".join(part + random.Random(n).choice([" ", "\n", "\n\n"]) for n, part in enumerate(parts))
    return parse(text.encode(), "a.txt", None)


async def _indexed(embedder: OpenVinoEmbedder, parsed: Parsed, overlap: int = 0) -> Index:
    pieces = chunk(parsed, replace(SPEC, chunk_overlap=overlap), "", embedder.token_spans, 256)
    assert len(pieces) > 5
    house = InProcess(embedder)
    await house.add([Text("a", "A", parsed.text)], lambda *_: None, {"a": pieces})
    return house.index


@pytest.mark.parametrize("overlap", [0, 10])
async def test_any_place_is_shown_as_the_text_has_it_with_what_stands_around_it(
    embedder: OpenVinoEmbedder, overlap: int
) -> None:
    parsed = _prose()
    index = await _indexed(embedder, parsed, overlap)
    text, draw = parsed.text, random.Random(7)
    for _ in range(60):
        start = draw.randrange(len(text) - 1)
        end = min(len(text), start + draw.randrange(1, 2_000))
        found = await excerpts.read(index, EVERYTHING, "a", Span(start, end), 300)
        place = found.span
        assert start <= place.start < place.end <= end
        assert found.text.split() == text[place.start : place.end].split() == text[start:end].split()
        assert found.before.split() == text[max(0, place.start - 300) : place.start].split()
        assert found.after.split() == text[place.end : place.end + 300].split()


async def test_a_table_is_shown_once_and_not_with_the_names_that_each_passage_repeats(
    embedder: OpenVinoEmbedder,
) -> None:
    parsed = _table()
    index = await _indexed(embedder, parsed)
    row = "| pump 40 | 40 euros |"
    start = parsed.text.index(row)
    found = await excerpts.read(index, EVERYTHING, "a", Span(start, start + len(row)), 5_000)
    assert found.text == row
    assert found.chunk.text.startswith("| Model | Price |")
    assert found.before + found.text + found.after == parsed.text


async def test_a_place_is_found_only_in_the_revision_that_named_it(embedder: OpenVinoEmbedder) -> None:
    index = await _indexed(embedder, _prose())
    assert (await excerpts.read(index, EVERYTHING, "a", Span(0, 4), 0, revision=1)).text == "Item"
    with pytest.raises(NotFound):
        await excerpts.read(index, EVERYTHING, "a", Span(0, 4), 0, revision=2)
    with pytest.raises(NotFound):
        await excerpts.read(index, EVERYTHING, "a", Span(10**6, 10**6 + 4), 0)
