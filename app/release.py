"""A release: everything that decides what the service does, in one file with one fingerprint.

Loaded from TOML, validated strictly (an unknown key is an error), canonicalised and hashed together with
its prompt texts, so that two files that do the same have the same fingerprint and any change has another.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm.errors import PromptInvalid
from llm.prompts import Template, load_template
from llm.serving import Dtype, Policy, ServingSpec
from llm.types import Sampling
from retrieval.languages import FUNCTION_WORDS
from retrieval.types import EmbedderSpec, IndexSpec, Prefixes, SearchParams

DEFAULT_RELEASE = Path(__file__).with_name("default.toml")
EXTRACTIVE = "extractive"
TAKEN = frozenset({"champion", "standing"})
"""What addresses and commands mean by these is no release of that name."""


class ReleaseInvalid(Exception):
    """The release file cannot be used; the message says which key and why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# Left out where it is not set, so that releases from before there was such a key keep their fingerprints.
_UNSET = Field(exclude_if=operator.not_)


class ServingPart(_Strict):
    """How vLLM serves a model (`llm.serving`); what is left out is vLLM's own choice."""

    dtype: Dtype = "auto"
    quantization: str | None = None
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1)] | None = None
    prefix_caching: bool = True
    chunked_prefill: bool = True
    scheduling: Policy = "priority"
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    eager: bool = False
    reasoning_parser: Annotated[str | None, _UNSET] = None


class ModelRef(_Strict):
    """A model by the name its server knows; `extractive` is the built-in one that needs no server."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    revision: str | None = None
    serving: ServingPart | None = None

    @model_validator(mode="after")
    def _can_be_served(self) -> ModelRef:
        if self.serving and self.name == EXTRACTIVE:
            raise ValueError("extractive is built in: nothing serves it")
        self.spec()
        return self

    def spec(self, folder: str | None = None) -> ServingSpec:
        """What vLLM is started with; `folder` holds the model's files where it is not fetched by name."""
        part = self.serving or ServingPart()
        return ServingSpec(
            model=folder or self.name,
            revision=None if folder else self.revision,
            served_name=self.name,
            **part.model_dump(),
        )


class SamplingPart(_Strict):
    """`thinking`: models that can think before they answer do so, within `max_tokens`; nobody sees their
    thoughts."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(gt=0, le=32_768)] = 512
    min_tokens: Annotated[int, Field(ge=0, le=32_768)] = 0
    seed: int | None = None
    thinking: Annotated[bool, _UNSET] = False


class PromptsPart(_Strict):
    """Shipped names (`answer`) or paths of Markdown files beside the release file."""

    answer: str = "answer"
    summarize: str = "summarize"
    rewrite: str = "rewrite"


def _language(name: str) -> str:
    if name not in FUNCTION_WORDS:
        raise ValueError(f"there is no language {name!r}; there are {', '.join(FUNCTION_WORDS)}")
    return name


Prefix = Annotated[str, Field(max_length=1_000), _UNSET]


class IndexPart(_Strict):
    """`chunk_tokens` of a passage at most, of which neighbours share `chunk_overlap`; in long documents
    `long_tokens` and `long_overlap`, 0 being the same there. `document_prefix` is what the embedder was
    trained to read before a passage; the one before a question is in `search`, since it changes no index."""

    embedder: str = "all-MiniLM-L6-v2"
    chunker: Literal["structure"] = "structure"
    chunk_tokens: Annotated[int, Field(ge=32, le=8_192)] = 200
    chunk_overlap: Annotated[int, Field(ge=0, le=1_024)] = 0
    long_tokens: Annotated[int, Field(ge=0, le=8_192)] = 0
    long_overlap: Annotated[int, Field(ge=0, le=1_024)] = 0
    header: str = "{title}\n{heading}\n"
    analyzer: Literal["snowball", "snowball-english", "plain"] = "snowball"
    document_prefix: Prefix = ""

    @model_validator(mode="after")
    def _overlap_fits(self) -> IndexPart:
        if self.chunk_overlap * 2 > self.chunk_tokens:
            raise ValueError("chunk_overlap must be at most half of chunk_tokens")
        if 0 < self.long_tokens < 32:
            raise ValueError("long_tokens must be 0 or at least 32")
        if self.long_overlap * 2 > self.long_tokens:
            raise ValueError("long_overlap must be at most half of long_tokens")
        return self


class SearchPart(_Strict):
    """`languages` are those that the embedder was trained on, by Snowball's names, empty for all: a question
    in another one is searched with `foreign_weight` in place of `dense_weight`. `query_prefix` is what the
    embedder was trained to read before a question."""

    limit: Annotated[int, Field(ge=1, le=100)] = 8
    candidates: Annotated[int, Field(ge=1, le=1_000)] = 100
    dense_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    languages: list[Annotated[str, AfterValidator(_language)]] = ["english"]
    foreign_weight: Annotated[float, Field(ge=0, le=1)] = 0.25
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.9
    smoothing_depth: Annotated[int, Field(ge=2, le=100)] = 50
    query_prefix: Prefix = ""


class RerankPart(_Strict):
    """A reranker by the name that its server knows, or `cross-encoder/...` for one in this process. It is
    shown the best `candidates` and has that `share` of the time a request has left."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    candidates: Annotated[int, Field(ge=1, le=200)] = 30
    share: Annotated[float, Field(gt=0, le=0.9)] = 0.3


class ContextPart(_Strict):
    """`order` is that of the passages in the prompt: `canonical` keeps it the same for the same sources.
    `distinct`: a passage that only repeats a better one gives its place to the next. `superseded` passages,
    of texts that say in their titles that they no longer hold, come after others (`late`) but for the best
    two, unless the question asks for them, or have the place of their score (`alike`)."""

    max_characters: Annotated[int, Field(ge=200, le=1_000_000)] = 12_000
    distinct: bool = True
    superseded: Literal["late", "alike"] = "late"
    order: Literal["canonical", "score"] = "canonical"


class AnswerPart(_Strict):
    """`buffer`: text leaves as it comes, or by whole sentences. `support`: how each sentence is checked
    against what it cites: by its words alone, by an embedder too, or not at all."""

    buffer: Literal["token", "sentence"] = "token"
    support: Literal["meaning", "words", "off"] = "meaning"


class LadderPart(_Strict):
    """How full the queue is, 0 to 1, when answers begin to do without something; 1 is never."""

    no_rerank: Annotated[float, Field(ge=0, le=1)] = 0.25
    smaller: Annotated[float, Field(ge=0, le=1)] = 0.5
    extractive: Annotated[float, Field(ge=0, le=1)] = 0.75
    search_only: Annotated[float, Field(ge=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _rises(self) -> LadderPart:
        steps = [self.no_rerank, self.smaller, self.extractive, self.search_only]
        if steps != sorted(steps):
            raise ValueError("no_rerank, smaller, extractive and search_only must not fall")
        return self


class CachePart(_Strict):
    ttl_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class ReleaseFile(_Strict):
    """The keys of a release file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    models: Annotated[list[ModelRef], Field(min_length=1, max_length=8)]
    sampling: SamplingPart = SamplingPart()
    prompts: PromptsPart = PromptsPart()
    index: IndexPart = IndexPart()
    search: SearchPart = SearchPart()
    rerank: RerankPart | None = None
    context: ContextPart = ContextPart()
    answer: AnswerPart = AnswerPart()
    ladder: LadderPart = LadderPart()
    cache: CachePart = CachePart()


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A validated release. `id`, which every request asks for, begins its fingerprint: 12 hex digits."""

    body: ReleaseFile
    answer: Template
    summarize: Template
    rewrite: Template
    fingerprint: str = field(init=False)

    @property
    def name(self) -> str:
        return self.body.name

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", hashlib.sha256(self.canonical().encode()).hexdigest())

    @property
    def id(self) -> str:
        return self.fingerprint[:12]

    @property
    def sampling(self) -> Sampling:
        part = self.body.sampling
        return Sampling(
            temperature=part.temperature,
            top_p=part.top_p,
            max_tokens=part.max_tokens,
            min_tokens=part.min_tokens,
            seed=part.seed,
            thinking=part.thinking,
        )

    @property
    def search(self) -> SearchParams:
        part = self.body.search
        return SearchParams(
            limit=part.limit,
            candidates=part.candidates,
            dense_weight=part.dense_weight,
            languages=tuple(part.languages),
            foreign_weight=part.foreign_weight,
            smoothing=part.smoothing,
            smoothing_depth=part.smoothing_depth,
            rerank=self.body.rerank.candidates if self.body.rerank else 0,
        )

    @property
    def prefixes(self) -> Prefixes:
        return Prefixes(query=self.body.search.query_prefix, document=self.body.index.document_prefix)

    def index_spec(self, embedder: EmbedderSpec, parser: str) -> IndexSpec:
        part = self.body.index
        return IndexSpec(
            embedder=embedder.artefact,
            dimension=embedder.dimension,
            chunker=part.chunker,
            chunk_tokens=part.chunk_tokens,
            chunk_overlap=part.chunk_overlap,
            header_template=part.header,
            analyzer=part.analyzer,
            parser=parser,
            long_tokens=part.long_tokens,
            long_overlap=part.long_overlap,
            document_prefix=part.document_prefix,
        )

    def canonical(self) -> str:
        """The release as JSON with prompt texts in place of their paths; what is hashed and stored.

        The name is left out of nothing: two releases that differ in name only are two releases.
        """
        body = self.body.model_dump(mode="json")
        body["prompts"] = {t.name: t.text for t in (self.answer, self.summarize, self.rewrite)}
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def load_release(path: Path) -> Release:
    """Read and validate a release file; prompts are found beside it or among the shipped ones."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReleaseInvalid(f"Cannot read the release file {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReleaseInvalid(f"{path} is not valid TOML: {error}.") from None
    body = _validated(raw, str(path))
    if body.name in TAKEN:
        raise ReleaseInvalid(f"{path}: name: {body.name!r} means something else: choose another.")
    prompts = body.prompts
    return Release(
        body=body,
        answer=_template("answer", prompts.answer, path.parent),
        summarize=_template("summarize", prompts.summarize, path.parent),
        rewrite=_template("rewrite", prompts.rewrite, path.parent),
    )


def parse_release(canonical: str) -> Release:
    """The release that `Release.canonical` wrote."""
    raw = json.loads(canonical)
    texts = raw.pop("prompts")
    return Release(
        body=_validated(raw, "the stored release"),
        answer=Template(name="answer", text=texts["answer"]),
        summarize=Template(name="summarize", text=texts["summarize"]),
        rewrite=Template(name="rewrite", text=texts["rewrite"]),
    )


def with_model(release: Release, model: str) -> Release:
    """The release with a served model in front of its chain, served as the release says if it does."""
    known = release.body.models
    first = next((ref for ref in known if ref.name == model), ModelRef(name=model))
    models = [first, *(ref for ref in known if ref.name != model)]
    return Release(
        body=release.body.model_copy(update={"models": models}),
        answer=release.answer,
        summarize=release.summarize,
        rewrite=release.rewrite,
    )


def _validated(raw: dict[str, Any], where: str) -> ReleaseFile:
    try:
        return ReleaseFile.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ReleaseInvalid(f"{where}: {problems}.") from None


def _template(name: str, reference: str, folder: Path) -> Template:
    try:
        if re.fullmatch(r"[a-z_]+", reference):
            return load_template(reference)
        return Template(name=name, text=(folder / reference).read_text(encoding="utf-8"))
    except PromptInvalid as error:
        raise ReleaseInvalid(f"prompts.{name}: {error}") from None
    except UnicodeDecodeError:
        raise ReleaseInvalid(f"prompts.{name}: {folder / reference} is not UTF-8 text.") from None
    except OSError as error:
        raise ReleaseInvalid(f"prompts.{name}: cannot read {folder / reference}: {error.strerror}.") from None
