"""What request bodies have in common: unknown fields are refused; what to search in, whole numbers and times
are each said one way."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from app.routes import filters
from retrieval.types import Condition


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def such_as(*examples: dict[str, Any]) -> ConfigDict:
    """Whole requests, as the OpenAPI document shows them. Each works where what it names is there."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold the character U+0000")
    return text


def _no_number(moment: Any) -> Any:
    """Which would be taken for seconds since 1970, or for milliseconds if it is large."""
    if isinstance(moment, int | float) or (isinstance(moment, str) and _NUMBER.fullmatch(moment)):
        raise ValueError("a date or a date-time is needed, as 2026-03-01T09:30:00Z")
    return moment


def _in_our_time(moment: datetime) -> datetime:
    """Near the first and the last year that there is, a time cannot be told in another zone."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not 1970 <= moment.year < 9999:
        raise ValueError("the year must lie between 1970 and 9998")
    return moment


_NUMBER = re.compile(r"\s*[-+]?[0-9.]+(?:e[-+]?[0-9]+)?\s*", re.IGNORECASE)
_LEFT_OUT = "Left out, it means all; an empty list is refused."


AT_LEAST_ONE: dict[str, Any] = {"minItems": 1}
"""What `not_empty` asks, for the OpenAPI document."""


def not_empty(names: list[str]) -> list[str]:
    """Whoever computes a list, and finds none, does not mean everything. The default is not validated."""
    if not names:
        raise ValueError("an empty list names none; leave it out instead")
    return names


Text = Annotated[str, AfterValidator(_without_nul)]
CollectionName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_without_nul)]
DocumentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:~@-]{1,200}$")]
Flag = Annotated[bool, Field(strict=True)]
"""true or false; 0, 1 and `"yes"` are neither."""
Whole = Annotated[int, Field(strict=True)]
"""A whole number; true, `"1"` and 1.0 are none."""
Time = Annotated[datetime, BeforeValidator(_no_number), AfterValidator(_in_our_time)]
"""A date-time or a date, in UTC where it names no offset."""


class Selection(Strict):
    """Which documents: by collection, by id, by metadata. Nothing named means everything readable."""

    collection: CollectionName | None = Field(default=None, description="One collection to search in.")
    # Of factories: defaults would be copied deeply for every request.
    collections: Annotated[list[CollectionName], AfterValidator(not_empty)] = Field(
        default_factory=list,
        max_length=50,
        description=f"Several. {_LEFT_OUT}",
        json_schema_extra=AT_LEAST_ONE,
    )
    document_ids: Annotated[list[DocumentId], AfterValidator(not_empty)] = Field(
        default_factory=list, max_length=1_000, description=_LEFT_OUT, json_schema_extra=AT_LEAST_ONE
    )
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

    @property
    def place(self) -> str:
        """Where its collections are named."""
        return "collection" if self.collection is not None else "collections[]"

    def where(self, param: str = "filter") -> Condition | None:
        return filters.condition(self.filter, param)
