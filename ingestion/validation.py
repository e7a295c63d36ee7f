"""Holds a parsed document against its collection's rules, before anything of it is embedded.

Where a collection has no rules this costs a look into memory. Only hashes of paragraphs are kept, and only
of collections that ask how much their documents repeat: of the documents that were read since they do.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ingestion.errors import Quarantined
from ingestion.generations import REINDEX_PRIORITY
from ingestion.ledger import Ledger
from ingestion.rules import NONE, OTHER, Breach, Rule, Rules, missing_metadata
from ingestion.types import Lease, Parsed
from retrieval.languages import FUNCTION_WORDS, language
from retrieval.types import Metadata

KNOWN_FOR = 2.0
_MOST_KNOWN = 4_096
_MOST_PARAGRAPHS = 2_000
"""Paragraphs of a document that are compared, the same ones of whichever document: those of lowest hash."""
_SHORTEST_PARAGRAPH = 40
"""Characters; shorter ones repeat by chance."""
_SAMPLE = 50_000
"""Characters by which the language is told."""
_LONGEST_NOTE = 1_000
_FEWEST_WORDS = 20
_KNOWN_SHARE = 0.05
"""The share of function words below which a text is in no language that we know."""
_WORD = re.compile(r"[^\W\d_]+")
_DAMAGE = re.compile(
    "[\ufffd\ue000-\uf8ff]"
    # UTF-8 of two and three bytes that was read as Windows-1252 or Latin-1.
    "|[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
    "|\u00e2[\u0080\u20ac][\u0090-\u00bf\u0153\u02dc\u2018-\u201d\u2122]"
)


@dataclass(frozen=True, slots=True)
class _Known:
    """`asked` is the ledger's clock, `at` ours."""

    rules: Rules
    asked: datetime
    at: float


class Validation:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, str], _Known] = {}

    async def check(self, lease: Lease, parsed: Parsed) -> None:
        """Note on the job and its document which rules are broken. Raises `Quarantined` for one that
        refuses. What is indexed anew was let in before."""
        if lease.job.generation is not None or lease.job.priority == -REINDEX_PRIORITY:
            return
        rules = await self._rules(lease)
        if rules == NONE and not parsed.notes and not lease.job.warnings:
            return
        hashes: list[int] = []
        if rules.max_duplicate_share is not None:
            hashes = await asyncio.to_thread(paragraphs, parsed)
        found = await asyncio.to_thread(breaches, rules, parsed, lease.metadata)
        if hashes:
            found += await self._repeated(lease, rules, hashes)
        refused = next((one for one in found if one.rule in rules.refuse), None)
        if refused is not None:
            raise Quarantined("validation", refused.message, refused.rule)
        await self._ledger.validated(lease.job, found, hashes)

    async def _rules(self, lease: Lease) -> Rules:
        """Those that held when the job was accepted, or later ones."""
        key, now = (lease.job.tenant, lease.collection), time.monotonic()
        known = self._known.get(key)
        if known is None or now - known.at > KNOWN_FOR or known.asked <= lease.job.created_at:
            rules, asked = await self._ledger.rules(*key)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[key] = _Known(rules, asked, now)
        return known.rules

    async def _repeated(self, lease: Lease, rules: Rules, hashes: list[int]) -> list[Breach]:
        job = lease.job
        seen = await self._ledger.paragraphs_elsewhere(job.tenant, lease.collection, job.document_id, hashes)
        share = seen / len(hashes)
        if rules.max_duplicate_share is None or share <= rules.max_duplicate_share:
            return []
        told = (
            f"{share:.0%} of the paragraphs are in other documents of the collection too; at most "
            f"{rules.max_duplicate_share:.0%} may be."
        )
        return [Breach("max_duplicate_share", told)]


def breaches(rules: Rules, parsed: Parsed, metadata: Metadata) -> list[Breach]:
    """All that can be told by the document alone."""
    checks: Mapping[Rule, Callable[[], str | None]] = {
        "languages": lambda: _language(rules.languages, parsed.text),
        "min_characters_per_page": lambda: _page(rules.min_characters_per_page, parsed),
        "min_characters": lambda: _short(rules.min_characters, parsed.text),
        "max_characters": lambda: _long(rules.max_characters, parsed.text),
        "max_damage_share": lambda: _damage(rules.max_damage_share, parsed.text),
        "required_metadata": lambda: missing_metadata(rules.required_metadata, metadata),
        "notes": lambda: " ".join(parsed.notes)[:_LONGEST_NOTE] if rules.notes else None,
    }
    told = ((rule, check()) for rule, check in checks.items())
    return [Breach(rule, message) for rule, message in told if message]


def spoken(text: str) -> str | None:
    """The language of a text by its function words, `other` where they say none; None of one too short."""
    plain = unicodedata.normalize("NFKD", text[:_SAMPLE].casefold())
    words = _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))
    if len(words) < _FEWEST_WORDS:
        # Words are not parted by spaces everywhere.
        letters = sum(map(len, words))
        return OTHER if letters >= 5 * _FEWEST_WORDS and not any(map(_is_latin, words)) else None
    found = language(words)
    known = sum(word in FUNCTION_WORDS[found] for word in words) / len(words)
    return found if known >= _KNOWN_SHARE else OTHER


def _is_latin(word: str) -> bool:
    return all(c < "\u0250" for c in word)


def _language(allowed: tuple[str, ...], text: str) -> str | None:
    if not allowed:
        return None
    found = spoken(text)
    if found is None or found in allowed:
        return None
    name = "no language that is known here" if found == OTHER else found.capitalize()
    return f"The text is in {name}, not in {' or '.join(one.capitalize() for one in allowed)}."


def _page(least: int | None, parsed: Parsed) -> str | None:
    """Pages without a block count too: that is what a page that was not read looks like."""
    sizes: dict[int, int] = {}
    for block in parsed.blocks:
        if block.page is not None:
            sizes[block.page] = sizes.get(block.page, 0) + block.span.end - block.span.start
    if least is None or not sizes:
        return None
    pages = max(sizes)
    mean = sum(sizes.values()) / pages
    if mean >= least:
        return None
    poor = sum(sizes.get(page, 0) < least for page in range(1, pages + 1))
    return f"A page holds {mean:.0f} characters on average, less than {least} ({poor} of {pages} pages do)."


def _short(least: int | None, text: str) -> str | None:
    if least is None or len(text) >= least:
        return None
    return f"The text has {len(text):,} characters; at least {least:,} are wanted."


def _long(most: int | None, text: str) -> str | None:
    if most is None or len(text) <= most:
        return None
    return f"The text has {len(text):,} characters; at most {most:,} are wanted."


def damage(text: str) -> float:
    """The share of characters that no author wrote."""
    return sum(len(found) for found in _DAMAGE.findall(text)) / max(1, len(text))


def _damage(most: float | None, text: str) -> str | None:
    if most is None:
        return None
    share = damage(text)
    return f"{share:.1%} of the characters are damaged; at most {most:.1%} may be." if share > most else None


def paragraphs(parsed: Parsed) -> list[int]:
    """Hashes of the document's paragraphs, whatever their case and spaces; 64 bits each."""
    return sorted(set(_hashes(parsed)))[:_MOST_PARAGRAPHS]


def _hashes(parsed: Parsed) -> Iterator[int]:
    for block in parsed.blocks:
        words = " ".join(parsed.text[block.span.start : block.span.end].casefold().split())
        if block.kind != "heading" and len(words) >= _SHORTEST_PARAGRAPH:
            digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
            yield int.from_bytes(digest, "big", signed=True)
