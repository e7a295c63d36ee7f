"""Loads data sets: the shipped ones by name, and folders by path, in our layout or BEIR's.

Ours is a folder with `dataset.toml` and `cases.jsonl`, of which the shipped ones are under `datasets/`. Its
`[corpus]` names a `folder` of files, beside it or inside one of our packages (`package`), or a `file` of
texts as BEIR has them. A row of `cases.jsonl` is a `Case`. The fingerprint covers every byte of corpus and
cases. `dataset.toml` may pin it, and the shipped ones do, so that content cannot change under the same
version unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from eval.decoding import decoded
from eval.metrics.ranking import HALF, overlap
from eval.types import Case, Dataset, DatasetInvalid, DatasetRef, Gold, SourceDocument
from ingestion.errors import Quarantined, UnsupportedType
from ingestion.parse import parse

BEIR_DEPTH = 10
"""Hits asked for in a retrieval-only set: published figures are nDCG@10."""


def load_dataset(name: str) -> Dataset:
    """A shipped data set by its name, or a folder by its path."""
    shipped = _datasets() / name
    if re.fullmatch(r"[a-z0-9_-]+", name) and (shipped / "dataset.toml").is_file():
        return load_folder(shipped)
    folder = Path(name)
    if (folder / "dataset.toml").is_file():
        return load_folder(folder)
    if (folder / "corpus.jsonl").is_file():
        try:
            return _beir(folder)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetInvalid(f"{folder} is not in BEIR's layout: {error!r}.") from None
    raise DatasetInvalid(
        f"There is no data set {name!r}: give one of {', '.join(dataset_names())}, or the path of a folder "
        "with dataset.toml and cases.jsonl, or with corpus.jsonl, queries.jsonl and qrels/test.tsv."
    )


def dataset_names() -> list[str]:
    return sorted(path.parent.name for path in _datasets().glob("*/dataset.toml"))


def document_id(relative: str) -> str:
    """The id that a file gets by its path inside the corpus: `policies/leave.md`, `policies:leave.md`."""
    return re.sub(r"[^A-Za-z0-9._:~@-]", "-", relative.replace("/", ":"))


def fingerprint(name: str, version: str, documents: Iterable[SourceDocument], cases: bytes) -> str:
    digest = hashlib.sha256(f"{name}\n{version}\n".encode())
    for document in documents:
        content = hashlib.sha256(document.content).hexdigest()
        digest.update(json.dumps([document.id, document.title, content]).encode())
    digest.update(cases)
    return digest.hexdigest()


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """At most `limit` cases, spread evenly so that every kind stays in. It is another data set: its
    fingerprint differs, so that a report on it never passes for one on all cases."""
    total = len(dataset.cases)
    if limit is None or limit >= total:
        return dataset
    cases = tuple(dataset.cases[index * total // limit] for index in range(limit))
    changed = hashlib.sha256(f"{dataset.ref.fingerprint} {limit}".encode()).hexdigest()
    version = f"{dataset.ref.version} ({limit} of {total} cases)".strip()
    return replace(dataset, cases=cases, ref=replace(dataset.ref, version=version, fingerprint=changed))


def _datasets() -> Path:
    return Path(str(resources.files("eval"))) / "datasets"


def load_folder(folder: Path) -> Dataset:
    """A folder with `dataset.toml` and `cases.jsonl`."""
    about = _about(folder / "dataset.toml")
    documents = tuple(_corpus(folder, about["corpus"]))
    content = _read(folder / "cases.jsonl").encode()
    found = fingerprint(about["name"], about["version"], documents, content)
    if found != about.get("fingerprint", found):
        raise DatasetInvalid(
            f"Data set {about['name']!r} {about['version']}: corpus or cases have changed. Raise the version "
            f'in {folder / "dataset.toml"} until its fingerprint is the one computed, now "{found}".'
        )
    cases = tuple(_cases(folder / "cases.jsonl"))
    _require_unique(cases, str(folder))
    _require_documents(cases, documents)
    _require_quotes(cases, documents)
    ref = DatasetRef(name=about["name"], version=about["version"], fingerprint=found)
    return Dataset(ref=ref, licence=about.get("licence", "none stated"), cases=cases, documents=documents)


def _about(path: Path) -> dict[str, Any]:
    try:
        about = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise DatasetInvalid(f"{path} is not TOML: {error}.") from None
    missing = {"name", "version", "corpus"} - about.keys()
    if missing:
        raise DatasetInvalid(f"{path} has no {', '.join(sorted(missing))}.")
    return about


def _corpus(folder: Path, where: dict[str, Any]) -> Iterator[SourceDocument]:
    if "file" in where:
        return texts(folder / where["file"])
    if "folder" not in where:
        raise DatasetInvalid(f"{folder / 'dataset.toml'}: [corpus] names neither a folder nor a file.")
    beside = Path(str(resources.files(where["package"]))) if "package" in where else folder
    return _files(beside / where["folder"])


def _files(corpus: Path) -> Iterator[SourceDocument]:
    for path in sorted(corpus.rglob("*")):
        if path.is_file():
            relative = path.relative_to(corpus).as_posix()
            yield SourceDocument(id=document_id(relative), content=path.read_bytes(), filename=path.name)


def _cases(path: Path) -> Iterator[Case]:
    number = 0
    for number, row in enumerate(rows(path), 1):
        try:
            case = decoded(Case, row)
        except TypeError as error:
            raise DatasetInvalid(f"{path}, case {number} (id {row.get('id')!r}): {error}.") from None
        if case.kind == "summary" and not case.gold:
            raise DatasetInvalid(f"Case {case.id!r} names nothing to summarize.")
        yield case
    if not number:
        raise DatasetInvalid(f"{path} holds no case.")


def _beir(folder: Path) -> Dataset:
    documents = tuple(texts(folder / "corpus.jsonl"))
    judged = _judgments(folder / "qrels" / "test.tsv")
    cases = tuple(
        Case(id=str(row["_id"]), question=row["text"], gold=tuple(judged[str(row["_id"])]))
        for row in rows(folder / "queries.jsonl")
        if str(row["_id"]) in judged
    )
    if not cases:
        raise DatasetInvalid(f"{folder}: no query has a judgment in qrels/test.tsv.")
    _require_unique(cases, str(folder))
    content = json.dumps([[c.id, c.question, [[g.document_id, g.gain] for g in c.gold]] for c in cases])
    found = fingerprint(folder.name, "", documents, content.encode())
    return Dataset(
        ref=DatasetRef(name=folder.name, version="", fingerprint=found),
        licence="see the folder",
        cases=cases,
        documents=documents,
        search_limit=BEIR_DEPTH,
    )


def texts(path: Path) -> Iterator[SourceDocument]:
    """The documents of a `corpus.jsonl`."""
    for row in rows(path):
        title = row.get("title") or None
        text = row["text"] or title or ""
        if text.strip():
            yield SourceDocument(id=document_id(str(row["_id"])), content=text.encode(), title=title)


def _judgments(path: Path) -> dict[str, list[Gold]]:
    """Judgments above 0 by query. The first line is a header."""
    judged: dict[str, list[Gold]] = {}
    for line in _read(path).split("\n")[1:]:
        if line.strip():
            query, document, gain = line.split("\t")
            if float(gain) > 0:
                judged.setdefault(query, []).append(Gold(document_id(document), gain=float(gain)))
    return judged


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file."""
    # Not splitlines: it also cuts at separators that a JSON string may hold.
    for number, line in enumerate(_read(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetInvalid(f"{path}, line {number}: {error}.") from None
            if not isinstance(row, dict):
                raise DatasetInvalid(f"{path}, line {number} is no object.")
            yield row


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetInvalid(f"Cannot read {path}: {error}.") from None


def _require_unique(cases: Sequence[Case], where: str) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DatasetInvalid(f"{where}: two cases have the id {case.id!r}.")
        seen.add(case.id)


def _require_documents(cases: Sequence[Case], documents: Sequence[SourceDocument]) -> None:
    known = {document.id for document in documents}
    for case in cases:
        for gold in case.gold:
            if gold.document_id not in known:
                raise DatasetInvalid(f"Case {case.id!r}: the corpus has no document {gold.document_id!r}.")


def _require_quotes(cases: Sequence[Case], documents: Sequence[SourceDocument]) -> None:
    """A quote that is nowhere would count as not found, whatever a release does."""
    contents = {document.id: document for document in documents}
    texts: dict[str, str] = {}
    for case in cases:
        for gold in case.gold:
            if gold.quote is None:
                continue
            if gold.document_id not in texts:
                texts[gold.document_id] = _text(contents[gold.document_id])
            if overlap(texts[gold.document_id], gold.quote) < HALF:
                raise DatasetInvalid(
                    f"Case {case.id!r}: the text of {gold.document_id!r} does not hold its quote "
                    f"{gold.quote!r}."
                )


def _text(document: SourceDocument) -> str:
    if document.filename is None:
        return document.content.decode()
    try:
        return parse(document.content, document.filename, None).text
    except (Quarantined, UnsupportedType) as error:
        raise DatasetInvalid(f"Document {document.id!r} is quoted and cannot be read: {error}") from None
