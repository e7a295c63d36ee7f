from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eval.bench.bulk import Chunks, changed, documents
from eval.encoders import encoder
from eval.types import DatasetInvalid, SourceDocument

PARAGRAPH = "The gateway keeps what it cannot send, and tries again every minute until somebody answers. " * 8


@pytest.fixture(scope="module")
async def chunks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chunks]:
    async with encoder("all-MiniLM-L6-v2", tmp_path_factory.mktemp("cache")) as found:
        yield Chunks(found)


def test_a_folder_of_texts_or_of_markdown_is_read(tmp_path: Path) -> None:
    texts, notes = tmp_path / "texts", tmp_path / "notes"
    texts.mkdir()
    rows = [{"_id": "1", "title": "One", "text": "first"}, {"_id": "2", "title": "", "text": "second"}]
    (texts / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (notes / "deep").mkdir(parents=True)
    (notes / "deep" / "note.md").write_text("# Note\n\nthird")
    assert [(one.id, one.title, one.content) for one in documents(texts)] == [
        ("1", "One", b"first"),
        ("2", None, b"second"),
    ]
    [note] = documents(notes)
    assert (note.id, note.filename) == ("deep:note.md", "deep/note.md")
    with pytest.raises(DatasetInvalid):
        documents(tmp_path / "nothing")


def test_changed_copies_share_no_chunk_with_the_documents_and_are_as_long(chunks: Chunks) -> None:
    found = [
        SourceDocument(id="notes:one.md", content=f"# One\n\n{PARAGRAPH}".encode(), filename="notes/one.md"),
        SourceDocument(id="two", content=PARAGRAPH.encode(), title="Two"),
    ]
    copies = list(changed(found, 2))
    assert len({one.id for one in copies} | {one.id for one in found}) == 6
    assert copies[0].filename == "notes/one.md~1.md"  # Its name says what it is.
    first, second = chunks.of(found), chunks.of(copies[:2])
    assert not set(first.texts) & set(second.texts)
    assert not set(second.texts) & set(chunks.of(copies[2:]).texts)
    assert second.tokens == pytest.approx(first.tokens, rel=0.05)


def test_a_token_that_no_chunk_holds_is_counted(chunks: Chunks, monkeypatch: pytest.MonkeyPatch) -> None:
    document = SourceDocument(id="one", content=PARAGRAPH.encode(), title="One")
    assert chunks.of([document]).missed == 0
    whole = chunks._indexer.texts
    monkeypatch.setattr(type(chunks._indexer), "texts", lambda self, parsed, title: whole(parsed, title)[1:])
    assert chunks.of([document]).missed > 50
