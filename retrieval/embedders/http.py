"""An embedder behind `POST /v1/embeddings`, in OpenAI's shape: vLLM, Text Embeddings Inference, a vendor.

Which model answers there is decided elsewhere and may change without a word. So what it said to a few
sentences when it was first asked is kept (`Records`), every request carries one of these sentences, and an
answer whose vector for it is another is refused. Vectors are compared, not hashed: the same model differs
in the last digits with the company a text is in, and one digit makes another hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
import orjson

from retrieval.embedders.checkpoint import TOKENIZER, sha256
from retrieval.embedders.tokens import Tokens, batches, encodable, open_tokenizer, read_window
from retrieval.errors import EmbedderUnavailable
from retrieval.types import EmbedderSpec, Matrix

MARK = "@"
"""In a release's name of a model, what follows it is not said to the server: it tells models apart that their
server calls the same."""

# With the probe 32, more than which Text Embeddings Inference takes only when told to. Where a server takes
# fewer, it says so with one of these.
_BATCH_TEXTS = 31
_TOO_MUCH = frozenset({413, 422})
_BATCH_TOKENS = 16_384
# Requests at once: of long calls, so that they leave the server to questions, and of those that are one.
_LONG_CALLS = 4
_SHORT_CALLS = 32
_CONNECT = 2.0
# Seconds for a request, and as many more for each of its texts: a server without a GPU is slow.
_SECONDS = 5.0
_SECONDS_A_TEXT = 1.0
_TRIES = 3
_BACKOFF = 0.2
_LONGEST_WAIT = 2.0
# A server that is down is asked again by one call in so many seconds, and the others are spared the wait.
_PAUSE = 2.0
# Retries that may be made at once; a request that went well earns a tenth of one.
_BUDGET = 10.0
_EARNED = 0.1
_PASSING = frozenset({429, 502, 503, 504})
# Half precision, batches and other kernels leave a cosine above 0.999; eight bits may leave 0.99.
_SAME = 0.995
_PROBES = (
    "Plumbline",
    "Employees have 28 days of paid leave a year, of which five may be carried over.",
    "Wie lange gilt die Garantie für das Gerät?",
    "def area(width, height): return width * height",
)
_HINTS = {
    400: "The model there may take shorter texts than the configuration in the tokenizer's folder says.",
    401: "Look at PLUMBLINE_EMBEDDER_KEY.",
    403: "Look at PLUMBLINE_EMBEDDER_KEY.",
    404: "Look at PLUMBLINE_EMBEDDER_URL, and whether the server has a model of this name.",
    413: "The model there may take shorter texts than the configuration in the tokenizer's folder says.",
    424: "Its model failed, or is not one that embeds: look at that server's log.",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What a model was when it was first asked: the SHA-256 of its tokenizer, and its vectors of the probes,
    (probes, dimension), L2-normalised."""

    name: str
    tokenizer: str
    vectors: Matrix

    @property
    def artefact(self) -> str:
        """SHA-256 over all of it."""
        head = f"http\n{self.name}\n{self.tokenizer}\n{self.vectors.shape}\n"
        return hashlib.sha256(head.encode() + self.vectors.astype("<f4").tobytes()).hexdigest()


class Records(Protocol):
    """Where it is kept, for every process that writes or reads the same indexes."""

    async def get(self, name: str) -> Known | None: ...

    async def keep(self, known: Known) -> Known:
        """Keep it unless the name has one; the one that is kept."""
        ...


class _TooMuch(EmbedderUnavailable):
    """The server takes fewer texts at once, or shorter ones."""


class EmbeddingServer:
    """One model of a server. `url` ends in `/v1`, or is the whole address of the endpoint, ending in
    `/embeddings`. The client stays the caller's to close."""

    def __init__(
        self,
        url: str,
        model: str,
        client: httpx.AsyncClient,
        *,
        key: str | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
        seconds: float = _SECONDS,
        pause: float = _PAUSE,
    ) -> None:
        base = url.rstrip("/")
        self._url = base if base.endswith("/embeddings") else f"{base}/embeddings"
        self._model = model
        self._client = client
        self._key = key
        self._headers = headers
        self._seconds = seconds
        self._pause = pause
        self._until = 0.0
        self._budget = _BUDGET

    def __repr__(self) -> str:
        return f"EmbeddingServer({self._url!r}, {self._model!r})"

    @property
    def url(self) -> str:
        return self._url

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """(texts, dimension), L2-normalised. Raises `EmbedderUnavailable`. What may pass is tried again: a
        text that is embedded twice does no harm."""
        if time.monotonic() < self._until:
            raise self._failed("was not reached a moment ago and is being left alone")
        # Some servers refuse a text of nothing; a tokenizer makes the same of a space.
        inputs = [encodable(text) or " " for text in texts]
        body = orjson.dumps({"model": self._model, "input": inputs, "encoding_format": "float"})
        seconds = self._seconds + _SECONDS_A_TEXT * len(texts)
        for tried in range(1, _TRIES + 1):
            try:
                response = await self._post(body, seconds)
                wait = self._wait(response, tried)
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as error:
                if not self._again(tried):
                    self._until = time.monotonic() + self._pause
                    raise self._failed(f"cannot be reached ({type(error).__name__})") from error
                wait = _BACKOFF * tried
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                self._until = time.monotonic() + self._pause
                raise self._failed(f"did not answer in time ({type(error).__name__})") from error
            if wait is None:
                break
            await asyncio.sleep(wait)
        if response.status_code != 200:
            failed = self._failed(f"answered {response.status_code}", _HINTS.get(response.status_code, ""))
            raise _TooMuch(str(failed)) if response.status_code in _TOO_MUCH else failed
        self._budget = min(_BUDGET, self._budget + _EARNED)
        return self._vectors(response.content, len(texts))

    async def _post(self, body: bytes, seconds: float) -> httpx.Response:
        headers = {"content-type": "application/json", **self._headers()}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        limits = httpx.Timeout(seconds, connect=_CONNECT)
        async with asyncio.timeout(seconds):
            return await self._client.post(self._url, content=body, headers=headers, timeout=limits)

    def _wait(self, response: httpx.Response, tried: int) -> float | None:
        """Seconds until the same is asked once more; None when it is not."""
        if response.status_code not in _PASSING or not self._again(tried):
            return None
        try:
            return min(max(0.0, float(response.headers["retry-after"])), _LONGEST_WAIT)
        except (KeyError, ValueError):
            return _BACKOFF * tried

    def _again(self, tried: int) -> bool:
        if tried == _TRIES or self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _vectors(self, content: bytes, count: int) -> Matrix:
        try:
            found = {int(each["index"]): each["embedding"] for each in orjson.loads(content)["data"]}
            vectors = np.array([found.pop(index) for index in range(count)], dtype=np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise self._failed("sent no vector of one length for every text") from error
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if found or vectors.ndim != 2 or not np.isfinite(norms).all() or not norms.all():
            raise self._failed("sent vectors that cannot be used (too many, not finite, or of length 0)")
        normalised: Matrix = vectors / norms
        return normalised

    def _failed(self, what: str, hint: str = "") -> EmbedderUnavailable:
        return EmbedderUnavailable(f"The embedder {self._model!r} at {self._url} {what}. {hint}".rstrip())


class HttpEmbedder:
    """Use `open`. For the tasks of one event loop."""

    def __init__(self, server: EmbeddingServer, tokens: Tokens, known: Known) -> None:
        self._server = server
        self._tokens = tokens
        self._known = known
        self._spec = EmbedderSpec(
            name=known.name,
            artefact=known.artefact,
            dimension=known.vectors.shape[1],
            max_tokens=tokens.window,
        )
        self._most = _BATCH_TEXTS
        self._long = asyncio.Semaphore(_LONG_CALLS)
        self._short = asyncio.Semaphore(_SHORT_CALLS)

    @classmethod
    async def open(cls, name: str, server: EmbeddingServer, folder: Path, records: Records) -> HttpEmbedder:
        """With the tokenizer in `folder`. A server that is known and away is no reason not to begin; one that
        has another model now, or a tokenizer that is another, is: `EmbedderUnavailable`."""
        path = folder / TOKENIZER
        tokens = Tokens(*await asyncio.to_thread(lambda: (open_tokenizer(path), read_window(folder))))
        tokenizer = sha256(path)
        known = await records.get(name)
        if known is None:
            vectors = await server.embed(_PROBES)
            known = await records.keep(Known(name=name, tokenizer=tokenizer, vectors=vectors))
        if known.tokenizer != tokenizer:
            raise EmbedderUnavailable(
                f"{path} is not the tokenizer that {name!r} had when it was first used here. Put that one "
                f"back, or {_instead(name)}."
            )
        embedder = cls(server, tokens, known)
        try:
            vectors = await server.embed(_PROBES)
        except EmbedderUnavailable as error:
            log.warning("%s It is asked again with the next text.", error)
        else:
            embedder._require_same(vectors, known.vectors)
        return embedder

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """Embed texts in the given order. A text longer than the window raises `TextTooLong` before any
        is embedded; `EmbedderUnavailable` when the server does not answer or has another model."""
        vectors = np.empty((len(texts), self._spec.dimension), dtype=np.float32)
        parts = list(batches(await self._tokens.lengths(texts), self._most, _BATCH_TOKENS))
        turns = self._short if len(parts) == 1 else self._long

        async def make(batch: list[int]) -> None:
            async with turns:
                vectors[batch] = await self._made([texts[index] for index in batch])

        if len(parts) == 1:
            await make(parts[0])
            return vectors
        tasks = [asyncio.ensure_future(make(batch)) for batch in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return vectors

    async def _made(self, texts: Sequence[str]) -> Matrix:
        """Their vectors, in two requests where the server takes no more than a part of them in one. That it
        takes no more is remembered when it took both halves: then no text was too long."""
        try:
            made = await self._server.embed([_PROBES[0], *texts])
        except _TooMuch:
            if len(texts) == 1:
                raise
            half = len(texts) // 2
            halves = [await self._made(texts[:half]), await self._made(texts[half:])]
            self._most = min(self._most, max(1, half))
            return np.concatenate(halves)
        self._require_same(made[:1], self._known.vectors[:1])
        return made[1:]

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Character ranges of the text's tokens, without the special ones."""
        return self._tokens.spans(text)

    def _require_same(self, vectors: Matrix, known: Matrix) -> None:
        name = self._spec.name
        if vectors.shape != known.shape:
            raise EmbedderUnavailable(
                f"{self._server.url} sends {vectors.shape[1]} numbers for a text; {name!r} had "
                f"{known.shape[1]} when it was first used here. Serve that model again, or {_instead(name)}."
            )
        nearest = float((vectors * known).sum(axis=1).min())
        if nearest < _SAME:
            raise EmbedderUnavailable(
                f"{self._server.url} has another model than {name!r} was when it was first used here: a text "
                f"that it knows has another vector (cosine {nearest:.3f}), and indexes would mix the two. "
                f"Serve that model again, or {_instead(name)}."
            )


def _instead(name: str) -> str:
    plain = name.partition(MARK)[0]
    return f"name this one {plain + MARK}2 in a release's [index] and build that release's index"
