"""What the tools of `/mcp` return: of what the routes tell, the part that a language model has a use for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

Supported = Annotated[
    float | None, Field(description="Share of the sentences that the sources they cite bear out.")
]
Degraded = Annotated[list[str], Field(description="What had to be done without.")]


class CharacterSpan(BaseModel):
    """Characters of the document's text."""

    start: int
    end: int


class FoundPassage(BaseModel):
    document_id: str
    chunk_id: str
    score: float
    title: str
    heading: str
    text: str
    page: int | None
    span: CharacterSpan
    collection: str
    metadata: dict[str, Any]


class SearchResult(BaseModel):
    hits: list[FoundPassage]
    next: Annotated[str | None, Field(description="`after` of the next page; null on the last.")]
    degraded: Degraded
    release: str


class CitedPassage(BaseModel):
    number: Annotated[int, Field(description="The text names this source as `[number]`.")]
    document_id: str
    chunk_id: str
    title: str
    heading: str
    page: int | None
    span: CharacterSpan
    text: str


# Fields of a base would come before those of the class, and the sources before what they are the sources of.
class AskResult(BaseModel):
    answered: Annotated[bool, Field(description="False: the documents do not hold the answer.")]
    answer: str
    citations: list[CitedPassage]
    supported: Supported
    degraded: Degraded
    model: str
    release: str
    conversation: str


class SummaryResult(BaseModel):
    summary: str
    coverage: Annotated[float, Field(description="Share of the text that the summary speaks of.")]
    citations: list[CitedPassage]
    supported: Supported
    degraded: Degraded
    model: str
    release: str


class PageResult(BaseModel):
    document_id: str
    title: str
    span: CharacterSpan
    text: str
    length: Annotated[int, Field(description="Characters of the whole document.")]
    next_offset: Annotated[int | None, Field(description="Where to read on; null at the end.")]


class ListedDocument(BaseModel):
    id: str
    collection: str
    title: str
    media_type: str
    metadata: dict[str, Any]
    visible: Annotated[bool, Field(description="Whether it can be found now.")]
    updated_at: datetime


class DocumentsResult(BaseModel):
    documents: list[ListedDocument]
    next: Annotated[str | None, Field(description="`after` of the next page; null on the last.")]


class ListedCollection(BaseModel):
    name: str
    documents: int


class CollectionsResult(BaseModel):
    collections: list[ListedCollection]
