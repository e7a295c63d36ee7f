"""The text of a data set's documents, as the product reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from eval.types import SourceDocument
from ingestion.parse import parse


class Texts(Mapping[str, str]):
    """By document id; each is parsed when it is first asked for."""

    def __init__(self, documents: Sequence[SourceDocument]) -> None:
        self._documents = {document.id: document for document in documents}
        self._known: dict[str, str] = {}

    def __getitem__(self, document_id: str) -> str:
        if document_id not in self._known:
            self._known[document_id] = _text(self._documents[document_id])
        return self._known[document_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)


def _text(document: SourceDocument) -> str:
    if document.filename is None:
        return document.content.decode()
    return parse(document.content, document.filename, None).text
