"""Plain text in any encoding: decoded, its paragraphs found, otherwise left as it is.

Spans therefore count in the caller's own text (after newlines are unified).
"""

from __future__ import annotations

import codecs
import re

from ingestion.errors import Quarantined
from ingestion.parse.builder import MAX_CHARACTERS, clean, too_large
from ingestion.parse.formats import charset
from ingestion.parse.sniff import wide_encoding
from ingestion.parse.within import Within
from ingestion.types import Block, Parsed
from retrieval.types import Span

_PARAGRAPH = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESS_BYTES = 64 * 1024
_USED = [
    *(
        "cp1252",
        "cp1251",
        "koi8_r",
        "cp1250",
        "iso8859_2",
        "cp1253",
        "iso8859_7",
        "cp1254",
        "cp1255",
        "cp1256",
    ),
    *("cp1257", "cp1258", "cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "cp949", "euc_kr", "tis_620"),
    *("cp874", "mac_roman", "cp437", "cp850", "cp866"),
]
"""Encodings that files are found in: rare ones fit short texts by chance."""


def read(content: bytes, within: Within) -> Parsed:
    return plain(decode(content, charset(within.media_type)))


def plain(written: str) -> Parsed:
    """Text as paragraphs."""
    text = clean(written)
    if len(text) > MAX_CHARACTERS:
        raise too_large()
    blocks = (Block(kind="paragraph", span=Span(*m.span())) for m in _PARAGRAPH.finditer(text))
    return Parsed(title=None, text=text, blocks=tuple(blocks))


def decode(content: bytes, declared: str | None = None) -> str:
    """By byte-order mark, else UTF-8, else UTF-16/32 by its zeros, else as declared, else by guessing."""
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content[len(bom) :].decode(encoding, "replace")
    if b"\x00" in content[:8_192] and (wide := wide_encoding(content[:8_192])):
        return content.decode(wide, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if _cut_short(error, content):
            return content.decode("utf-8", "replace")
    return _decode_as(content, declared) or _guess(content)


def _cut_short(error: UnicodeDecodeError, content: bytes) -> bool:
    """UTF-8 to the very end but for one broken character: a file cut in the middle, not another encoding."""
    return error.start >= len(content) - 3 and error.start > 100


def _decode_as(content: bytes, encoding: str | None) -> str | None:
    if encoding is None:
        return None
    try:
        return content.decode(encoding)
    except (LookupError, UnicodeError):  # Unknown, no text encoding, or not this one.
        return None


def _guess(content: bytes) -> str:
    import charset_normalizer

    sample = content if len(content) <= _GUESS_BYTES else content[:_GUESS_BYTES]
    matches = list(charset_normalizer.from_bytes(sample, cp_isolation=_USED)) or list(
        charset_normalizer.from_bytes(sample)
    )
    if not matches:
        raise Quarantined("damaged", "The text is in no encoding we know. Save it as UTF-8.")
    equals = [name for m in matches if m.chaos <= matches[0].chaos for name in m.could_be_from_charset]
    # Neighbours such as cp1250 often fit as well; the commonest of the single-byte encodings wins a tie.
    return content.decode("cp1252" if "cp1252" in equals else equals[0], "replace")
