"""What request bodies have in common: unknown fields are refused, and what to search in is said one way."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.errors import RequestInvalid
from retrieval.types import Scalar, Where

MOST_CONDITIONS = 20
MOST_VALUES = 100
LONGEST_VALUE = 1_000
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


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
    collections: list[CollectionName] = Field(default=[], max_length=50, description="Several.")
    document_ids: list[DocumentId] = Field(default=[], max_length=1_000)
    filter: dict[str, Any] = Field(
        default={},
        description="Metadata conditions, all of which must hold: `{field: value}` or `{field: [values]}`.",
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> Selection:
        if self.collection is not None and self.collections:
            raise ValueError("name `collection` or `collections`, not both")
        return self

    @property
    def names(self) -> list[str]:
        return [self.collection] if self.collection is not None else self.collections

    def where(self, param: str = "filter") -> tuple[Where, ...]:
        return conditions(self.filter, param)


def conditions(raw: Mapping[str, Any], param: str) -> tuple[Where, ...]:
    """`{"field": value | [values]}` as conditions. Names and values are checked here, once, for every
    store: none of them ever reaches one as part of an expression."""
    if len(raw) > MOST_CONDITIONS:
        raise RequestInvalid(f"At most {MOST_CONDITIONS} conditions.", param, "filter_invalid")
    return tuple(Where(_field(name, param), _values(value, f"{param}.{name}")) for name, value in raw.items())


def _field(name: str, param: str) -> str:
    if not _FIELD.fullmatch(name):
        told = f"{name[:80]!r} is no metadata field: a letter or _, then at most 63 letters, digits or _."
        raise RequestInvalid(told, param, "filter_invalid")
    return name


def _values(value: Any, param: str) -> tuple[Scalar, ...]:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MOST_VALUES:
        raise RequestInvalid(f"`{param}`: 1 to {MOST_VALUES} values.", param, "filter_invalid")
    return tuple(_scalar(one, param) for one in values)


def _scalar(value: Any, param: str) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= LONGEST_VALUE and "\x00" not in value:
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    told = f"`{param}`: a value is a text of at most {LONGEST_VALUE} characters, a number, true or false."
    raise RequestInvalid(told, param, "filter_invalid")
