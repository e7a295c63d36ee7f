"""Filters in Milvus's expression language, over facts in columns.

A row's facts lie in `SLOTS` text columns, one each, in any of them; what finds no place is in `rest`, one
string `|fact|fact|` that is matched by LIKE. Facts that can lie in a range always get a slot. A condition
asks all slots. Comparing a column costs Milvus Lite a hundredth of a LIKE over a filled one, or of JSON, and
no column is ever null, so `not` means what it says. What is compared literally is quoted with the escapes
that Milvus and Milvus Lite both know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from retrieval.errors import RowInvalid
from retrieval.stores import facts
from retrieval.types import And, Chunk, Condition, Exists, Filter, Not, OneOf, Or, Range

SLOTS = tuple(f"s{number}" for number in range(16))
REST = "rest"

# Above it, one look-up in a set is quicker on Milvus Lite than as many comparisons.
_FEW = 4
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def columns(chunk: Chunk) -> dict[str, str]:
    """The slots and the rest of a stored chunk. Raises `RowInvalid` when its ranges need too many slots."""
    ranked = facts.ranked(chunk)
    if len(ranked) > len(SLOTS):
        raise RowInvalid(
            f"Chunk {chunk.id!r} has {len(ranked)} numbers and dates as metadata; "
            f"the store takes {len(SLOTS)}."
        )
    every = [*ranked, *facts.rights(chunk), *facts.unranked(chunk)]
    left = every[len(SLOTS) :]
    return {
        **{slot: every[i] if i < len(every) else "" for i, slot in enumerate(SLOTS)},
        REST: f"|{'|'.join(left)}|" if left else "",
    }


def compile_filter(where: Filter, exclude: Collection[int]) -> str:
    """The expression of a checked filter, without the rows of the revisions in `exclude`."""
    parts = [f"tenant == {quoted(where.tenant)}"]
    if where.groups is not None:
        parts.append(_is_any([facts.EVERYBODY, *map(facts.group, sorted(where.groups))]))
    if where.collections:
        parts.append(is_one_of("collection", where.collections))
    if where.document_ids:
        parts.append(is_one_of("document_id", where.document_ids))
    if where.where is not None:
        parts.append(_compiled(where.where))
    if exclude:
        parts.append(f"revision not in {sorted(exclude)}")
    return " and ".join(parts)


def is_one_of(field: str, values: Iterable[str]) -> str:
    return f"{field} in [{', '.join(map(quoted, values))}]"


def quoted(text: str) -> str:
    """A string literal. Every other character, control characters included, stands for itself in both."""
    return f'"{text.translate(_ESCAPES)}"'


def _compiled(condition: Condition) -> str:
    match condition:
        case And(conditions):
            return f"({' and '.join(map(_compiled, conditions))})"
        case Or(conditions):
            return f"({' or '.join(map(_compiled, conditions))})"
        case Not(inner):
            return f"(not {_compiled(inner)})"
        case Exists(field):
            name = facts.named(field)
            return _in_a_slot(lambda slot: _between(slot, name, f"{name}~"), f'{REST} like "%|{name}%"')
        case OneOf(field, values):
            return _is_any([facts.equal(field, value) for value in values])
        case Range():
            first, last = facts.interval(condition)
            return _in_a_slot(lambda slot: _between(slot, first, last))


def _is_any(wanted: Sequence[str]) -> str:
    def test(slot: str) -> str:
        if len(wanted) > _FEW:
            return is_one_of(slot, wanted)
        return " or ".join(f'{slot} == "{fact}"' for fact in wanted)

    return _in_a_slot(test, *(f'{REST} like "%|{fact}|%"' for fact in wanted))


def _between(slot: str, first: str, last: str) -> str:
    return f'({slot} >= "{first}" and {slot} <= "{last}")'


def _in_a_slot(test: Callable[[str], str], *others: str) -> str:
    return f"({' or '.join([*map(test, SLOTS), *others])})"
