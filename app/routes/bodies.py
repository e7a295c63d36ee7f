"""What request bodies have in common: unknown fields are refused, and what to search in is said one way."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.routes import filters
from retrieval.types import Condition


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _printable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold the character U+0000")
    return text


Text = Annotated[str, AfterValidator(_printable)]
CollectionName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
DocumentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:~@-]{1,200}$")]


class Selection(Strict):
    """Which documents: by collection, by id, by metadata. Nothing named means everything readable."""

    collection: CollectionName | None = Field(default=None, description="One collection to search in.")
    # Of factories: defaults would be copied deeply for every request.
    collections: list[CollectionName] = Field(default_factory=list, max_length=50, description="Several.")
    document_ids: list[DocumentId] = Field(default_factory=list, max_length=1_000)
    filter: dict[str, Any] = Field(
        default_factory=dict, description=filters.DESCRIPTION, examples=filters.EXAMPLES
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> Selection:
        if self.collection is not None and self.collections:
            raise ValueError("name `collection` or `collections`, not both")
        return self

    @property
    def names(self) -> list[str]:
        return [self.collection] if self.collection is not None else self.collections

    def where(self, param: str = "filter") -> Condition | None:
        return filters.condition(self.filter, param)
