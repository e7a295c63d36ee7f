"""The instance under test, over HTTP like any other client.

Every failure is one `TargetFailed` with a sentence. A busy instance (429, 503) is asked again as it wishes, a
few times; nothing else is retried, so that what readers would see as a failure is counted as one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from eval.types import Passage, ReleaseRef, Reply, SourceDocument, Summarized, TargetFailed

ATTEMPTS = 4
LONGEST_WAIT = 30.0
BATCH_DOCUMENTS = 500
BATCH_BYTES = 8 * 2**20
POLL = 0.2
SETTLING = 60.0
FINISHED = frozenset({"succeeded", "failed", "quarantined", "cancelled"})

Progress = Callable[[int, int], None]
"""Called with how many are done, of how many."""


class HttpTarget:
    """`model` is `plumbline` or `plumbline@<release>`; releases that do not serve need a key with the scope
    `evaluate`. `timeout` is for one request, in seconds."""

    def __init__(
        self, url: str, key: str | None = None, model: str = "plumbline", timeout: float = 120.0
    ) -> None:
        self.url = url.rstrip("/")
        self.model = model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @contextmanager
    def pinned(self, release: ReleaseRef) -> Iterator[None]:
        """Ask this release until the block ends, whatever is promoted or tried meanwhile."""
        before, self.model = self.model, f"plumbline@{release.id}"
        try:
            yield
        finally:
            self.model = before

    async def ready(self) -> bool:
        """Whether the instance says that it can serve."""
        try:
            response = await self._client.get("/health/ready", timeout=5)
        except httpx.HTTPError:
            return False
        return response.status_code == httpx.codes.OK

    async def ask(self, question: str) -> Reply:
        begin = time.perf_counter()
        body = await self._post(
            "/v1/chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "user", "content": question}],
                "plumbline": {"cache": False},
            },
        )
        seconds = time.perf_counter() - begin
        try:
            return _reply(body, seconds)
        except (KeyError, IndexError, TypeError) as error:
            raise TargetFailed(f"The chat answer has no {error}.") from None

    async def summarize(
        self, document_ids: Sequence[str], *, focus: str, words: int | None, language: str | None
    ) -> Summarized:
        """Of the documents, by their ids. An empty `focus` and None leave it to the service."""
        request: dict[str, Any] = {
            "model": self.model,
            "document_ids": list(document_ids),
            "cache": False,
        }
        wishes = {"focus": focus or None, "max_words": words, "language": language}
        request |= {name: wish for name, wish in wishes.items() if wish is not None}
        begin = time.perf_counter()
        body = await self._post("/v1/summarize", request)
        seconds = time.perf_counter() - begin
        try:
            return _summarized(body, seconds)
        except (KeyError, TypeError) as error:
            raise TargetFailed(f"The summary has no {error}.") from None

    async def search(
        self, query: str, *, limit: int | None, by_document: bool = False
    ) -> tuple[Passage, ...]:
        request: dict[str, Any] = {"model": self.model, "query": query}
        if limit is not None:
            request["limit"] = limit
        if by_document:
            request["group"] = "document"
        body = await self._post("/v1/search", request)
        try:
            return tuple(_passage(hit) for hit in body["hits"])
        except (KeyError, TypeError) as error:
            raise TargetFailed(f"The search answer has no {error}.") from None

    async def ranking(self, query: str, *, limit: int) -> tuple[str, list[str]]:
        """The id of the release that searched, and the documents that it found, best first.

        A search that went without something is one of a busy instance, or of rows that are still to be swept
        away, and is asked again for a minute. Raises `TargetFailed` when that does not help, or when a
        document was found twice."""
        deadline = time.monotonic() + SETTLING
        request = {"model": self.model, "query": query, "limit": limit, "group": "document"}
        while True:
            body = await self._post("/v1/search", request)
            try:
                release, found = str(body["release"]), [str(hit["document_id"]) for hit in body["hits"]]
                without = [name for name in body["degraded"] if name != "query_truncated"]
            except (KeyError, TypeError) as error:
                raise TargetFailed(f"The search answer has no {error}.") from None
            if not without:
                break
            if time.monotonic() > deadline:
                raise TargetFailed(f"A search went without {', '.join(without)}: {query!r}")
            await asyncio.sleep(2.0)
        if len(set(found)) < len(found):
            raise TargetFailed(f"A document was found twice: {query!r}")
        return release, found

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        body = await self._post("/v1/embeddings", {"input": list(texts)})
        try:
            rows = sorted(body["data"], key=lambda row: int(row["index"]))
            return [list(map(float, row["embedding"])) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise TargetFailed(f"The embeddings answer has no {error}.") from None

    async def release(self) -> ReleaseRef:
        """The release that `model` names, with its canonical text."""
        named = self.model.partition("@")[2] or "champion"
        body = await self._get(f"/v1/releases/{named}")
        try:
            canonical = json.dumps(body["release"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
            return ReleaseRef(id=body["id"], name=body["name"], fingerprint=fingerprint, canonical=canonical)
        except KeyError as error:
            raise TargetFailed(f"The release {named} has no {error}.") from None

    async def promote(self, release: str, *, reason: str) -> None:
        """Let a release serve that the instance knows, evaluated or not."""
        await self._post(f"/v1/releases/{release}/promote", {"force": True, "reason": reason})

    async def ingest(self, documents: Sequence[SourceDocument], progress: Progress) -> None:
        """Hand in every document and wait until each can be found; one that cannot be is an error."""
        jobs: list[dict[str, Any]] = []
        for batch in _batches(documents):
            jobs += await self._put(batch)
            progress(0, len(documents))
        for done, job in enumerate(jobs, 1):
            await self._finished(job)
            progress(done, len(jobs))

    async def hand_in(self, documents: Sequence[SourceDocument]) -> None:
        """Hand in every document, and wait for none."""
        for batch in _batches(documents):
            await self._put(batch)

    async def all_ended(self) -> None:
        """Wait until no job is queued or running. The longer it takes, the less often it is asked, since
        answering takes from the work: at most a hundredth of the time is waited too long."""
        begun = time.monotonic()
        while True:
            if not await self.open_jobs():
                break
            await asyncio.sleep(max(POLL, (time.monotonic() - begun) / 100))

    async def open_jobs(self) -> bool:
        """Whether any job has not ended."""
        for status in ("queued", "running"):
            # A list of jobs comes with estimates, which cost more than counting.
            if (await self._get(f"/v1/jobs/summary?status={status}"))["jobs"]:
                return True
        return False

    async def fewer_queued(self, most: int) -> None:
        """Wait until fewer jobs, of all tenants, are queued."""
        while True:
            if await self._metric(r'plumbline_jobs\{state="queued"\}') < most:
                break
            await asyncio.sleep(POLL)

    async def reused(self) -> int:
        """How many vectors were at hand, of all that were wanted so far."""
        return await self._metric("plumbline_embeddings_reused_total")

    async def _metric(self, pattern: str) -> int:
        told = (await self._patiently("GET", "/metrics", {})).text
        found = re.search(rf"^{pattern} ([\d.e+]+)", told, re.MULTILINE)
        return int(float(found[1])) if found else 0

    async def ended(self, status: str) -> list[dict[str, Any]]:
        """Some of the jobs that ended so."""
        jobs: list[dict[str, Any]] = (await self._get(f"/v1/jobs?status={status}&limit=100"))["jobs"]
        return jobs

    async def chunks(self) -> dict[str, int]:
        """How many passages of each document can be found."""
        found: dict[str, int] = {}
        after = ""
        while True:
            page = await self._get(f"/v1/documents?limit=500{after}")
            found |= {one["id"]: one["chunks"] if one["visible"] else 0 for one in page["documents"]}
            if not page["next"]:
                return found
            after = f"&after={quote(page['next'], safe='')}"

    async def _put(self, batch: Sequence[SourceDocument]) -> list[dict[str, Any]]:
        if batch[0].filename is None:
            body = await self._post("/v1/documents", {"documents": [_text(document) for document in batch]})
        else:
            body = await self._json("POST", "/v1/documents", files=[_file(document) for document in batch])
        jobs: list[dict[str, Any]] = body["jobs"]
        return jobs

    async def _finished(self, job: dict[str, Any]) -> None:
        while True:
            found = await self._get(f"/v1/jobs/{job['id']}")
            if found["status"] in FINISHED:
                break
            await asyncio.sleep(POLL)
        if found["status"] != "succeeded":
            raise TargetFailed(
                f"Document {job['document_id']} was not ingested: {found['status']}, {found.get('error')}."
            )

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._json("GET", path)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._json("POST", path, json=body)

    async def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        response = await self._patiently(method, path, content)
        if response.is_error:
            raise TargetFailed(f"{method} {path}: {response.status_code}, {_message(response)}")
        try:
            body = response.json()
        except ValueError:
            raise TargetFailed(f"{method} {path}: the answer is not JSON.") from None
        if not isinstance(body, dict):
            raise TargetFailed(f"{method} {path}: the answer is not an object.")
        return body

    async def _patiently(self, method: str, path: str, content: dict[str, Any]) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = await self._client.request(method, path, **content)
            except httpx.ConnectError:
                raise TargetFailed(f"{method} {path}: nothing answers at {self.url}.") from None
            except httpx.HTTPError as error:
                raise TargetFailed(f"{method} {path}: {type(error).__name__} {error}".rstrip()) from None
            if response.status_code not in (429, 503) or attempt == ATTEMPTS:
                break
            await asyncio.sleep(_wait(response, attempt))
        return response


def _reply(body: dict[str, Any], seconds: float) -> Reply:
    said = body["plumbline"]
    return Reply(
        text=body["choices"][0]["message"]["content"],
        citations=tuple(_passage(citation) for citation in said["citations"]),
        sources=tuple(_passage(source) for source in said["sources"]),
        model=said.get("model") or body["model"],
        release=said["release"],
        degraded=tuple(said["degraded"]),
        seconds=seconds,
        finish=body["choices"][0]["finish_reason"],
        supported=_share(said["supported"]),
        cached=said["cached"],
        prompt_tokens=body["usage"]["prompt_tokens"],
        output_tokens=body["usage"]["completion_tokens"],
        id=body["id"],
    )


def _summarized(body: dict[str, Any], seconds: float) -> Summarized:
    return Summarized(
        text=body["text"],
        citations=tuple(_passage(citation) for citation in body["citations"]),
        coverage=float(body["coverage"]),
        sections_cited=float(body["sections_cited"]),
        model=body["model"],
        release=body["release"],
        degraded=tuple(body["degraded"]),
        seconds=seconds,
        supported=_share(body["supported"]),
        prompt_tokens=body["usage"]["prompt_tokens"],
        output_tokens=body["usage"]["completion_tokens"],
    )


def _share(value: float | None) -> float | None:
    return None if value is None else float(value)


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(
        document_id=row["document_id"],
        chunk_id=row["chunk_id"],
        text=row["text"],
        number=row.get("number", 0),
    )


def _text(document: SourceDocument) -> dict[str, Any]:
    row = {"id": document.id, "text": document.content.decode()}
    return row if document.title is None else {**row, "title": document.title}


def _batches(documents: Sequence[SourceDocument]) -> Iterator[list[SourceDocument]]:
    """Texts together and files together, up to a size that every instance takes. Few requests, so that the
    index is built of the same batches each time: a store whose keyword statistics are kept by segment
    would otherwise rank a little differently from run to run."""
    batch: list[SourceDocument] = []
    size = 0
    for document in documents:
        full = len(batch) == BATCH_DOCUMENTS or size + len(document.content) > BATCH_BYTES
        if batch and (full or (batch[0].filename is None) != (document.filename is None)):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.content)
    if batch:
        yield batch


def _file(document: SourceDocument) -> tuple[str, tuple[str, bytes]]:
    """A form file whose path gives the document's id back."""
    return "files", (document.id.replace(":", "/"), document.content)


def _wait(response: httpx.Response, attempt: int) -> float:
    try:
        asked = float(response.headers.get("Retry-After", ""))
    except ValueError:
        asked = 0.5 * 2**attempt
    return min(max(asked, 0.1), LONGEST_WAIT)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
