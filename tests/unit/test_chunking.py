"""How ways to cut are measured: on counts worked out by hand, and against what the study published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.release import DEFAULT_RELEASE, load_release
from eval import chunking
from eval.chunkers import characters, clusters, recursive
from eval.inprocess import Text
from eval.types import EvalError
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.types import Span

PUBLISHED = Path(__file__).parents[3] / "shared/data/chroma-chunking"
OWLS = "Owls hunt at night. "
PUMPS = "The pump is red now. "


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEmbedder:
    folder = find_model("all-MiniLM-L6-v2", None)
    return OpenVinoEmbedder.load(folder, tmp_path_factory.mktemp("openvino"), "all-MiniLM-L6-v2")


def _corpus(*gold: Span) -> chunking.Corpus:
    birds, machines = Text("birds", "", OWLS * 10), Text("machines", "", PUMPS * 10)
    return chunking.Corpus((birds, machines), (chunking.Asked("When do owls hunt?", "birds", gold),))


async def test_recall_precision_and_iou_are_those_of_characters(embedder: OpenVinoEmbedder) -> None:
    corpus = _corpus(Span(0, 20), Span(30, 40))
    row = await chunking.measured(
        corpus, load_release(DEFAULT_RELEASE), embedder, "100", characters(100), lambda *_: None
    )
    assert row.passages == 5
    assert row.ideal == pytest.approx(30 / 100)
    for found in (row.dense, row.hybrid):
        assert found is not None
        # All five passages are retrieved, 410 characters, and the one that holds gold is the first.
        best = found.best
        assert (best.recall, best.precision, best.iou) == pytest.approx((1.0, 30 / 410, 30 / 410))


async def test_a_gold_text_that_no_passage_holds_counts_in_the_union(embedder: OpenVinoEmbedder) -> None:
    corpus = _corpus(Span(0, 20))
    cuts = {"birds": (await characters(10)(corpus.documents[0]))[1:], "machines": []}
    assert chunking.ideal(corpus, cuts) == pytest.approx(10 / 20)


async def test_every_way_to_cut_keeps_the_places_of_its_passages(embedder: OpenVinoEmbedder) -> None:
    text = "".join(f"Hall {n} is {'wide' if n % 3 else 'closed'}.\n" + "\n" * (n % 2) for n in range(60))
    for way in (characters(90), recursive(60, embedder), clusters(150, embedder)):
        pieces = await way(Text("a", "", text))
        assert len(pieces) > 1
        assert "".join(piece.text for piece in pieces) == text
        assert all(piece.text == text[piece.span.start : piece.span.end] for piece in pieces)
        assert max(len(embedder.token_spans(piece.text)) for piece in pieces) <= 150


def test_questions_whose_text_is_not_at_its_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/birds.md").write_text(OWLS)
    reference = {"content": "Owls hunt", "start_index": 1, "end_index": 10}
    row = {"question": "When?", "corpus_id": "birds", "references": [reference]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(EvalError, match="not at its place"):
        chunking.load(tmp_path)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="shared/data/chroma-chunking is not here")
async def test_the_published_iou_of_1200_characters_is_found_again() -> None:
    corpus = chunking.load(PUBLISHED)
    cuts = {document.id: await characters(1_200)(document) for document in corpus.documents}
    assert chunking.ideal(corpus, cuts) == pytest.approx(0.177, abs=0.002)
