"""What a file really is, told from its bytes before anything opens it.

Runs in the API process, so it looks at a few kilobytes and a ZIP's list of names, and never decodes,
unpacks or parses. A file that is not what its name says is refused here with a sentence that helps.
"""

from __future__ import annotations

import re
import struct

from ingestion.errors import UnsupportedType
from ingestion.parse.formats import FORMATS, WE_READ, claimed, claims_nothing, extension

_SAMPLE = 8_192
_TEXT_FORMATS = frozenset(f.name for f in FORMATS.values() if f.text)
_OFFICE_FORMATS = frozenset({"docx", "pptx", "xlsx"})
_ZIP_FORMATS = _OFFICE_FORMATS | {"odt", "ods", "odp", "epub", "zip"}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"BM", "a bitmap image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"OggS", "an Ogg recording"),
    (b"ID3", "an MP3 recording"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS", "a PostScript document"),
)
_PRINTABLE_MAGIC = frozenset({b"BM", b"RIFF", b"MZ", b"BZh", b"GIF8", b"Rar!", b"PAR1", b"OggS", b"ID3"})

_ZIP_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    # An entry of a ZIP's directory: its signature, 42 bytes of sizes and the like, its name.
    (re.compile(rb"PK\x01\x02.{42}" + name, re.DOTALL), kind)
    for name, kind in (
        (rb"word/document", "docx"),
        (rb"ppt/presentation", "pptx"),
        (rb"xl/workbook\.xml", "xlsx"),
        (rb"xl/workbook\.bin", "a binary Excel workbook (XLSB)"),
        (rb"META-INF/container\.xml", "epub"),
        (rb"META-INF/MANIFEST\.MF", "a Java archive"),
        (rb"META-INF/manifest\.xml", "an OpenDocument file"),
    )
)
_MIMETYPE = re.compile(
    # The first entry, which OpenDocument and EPUB leave unpacked so that it can be told by.
    rb"PK\x03\x04.{22}\x08\x00.{2}mimetype.{0,64}?application/"
    rb"(epub\+zip|vnd\.oasis\.opendocument\.(?:text|spreadsheet|presentation))",
    re.DOTALL,
)
_MIMETYPES = {
    b"epub+zip": "epub",
    b"vnd.oasis.opendocument.text": "odt",
    b"vnd.oasis.opendocument.spreadsheet": "ods",
    b"vnd.oasis.opendocument.presentation": "odp",
}
_OLE_KINDS: tuple[tuple[str, str, str], ...] = (
    ("WordDocument", "an old Word document (DOC)", "Open it in an office program and save as DOCX."),
    ("PowerPoint Document", "an old presentation (PPT)", "Open it in an office program and save as PPTX."),
    ("Workbook", "an old workbook (XLS)", "Open it in an office program and save as XLSX."),
    ("__substg1.0_", "an Outlook message (MSG)", "Save it as EML."),
)
_OLE_NAMES = {".doc": 0, ".dot": 0, ".docx": 0, ".ppt": 1, ".pptx": 1, ".xls": 2, ".xlsx": 2, ".msg": 3}
_JSON_STARTS = b'{["-0123456789tfnNI/'

_CONTROL = bytes(c for c in range(32) if c not in b"\t\n\r\f\b\x1b") + b"\x7f"
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def sniff(content: bytes, filename: str | None, media_type: str | None) -> str:
    """The name of the format in `FORMATS` to read this content as.

    Raises `UnsupportedType` for a type we do not read and for a file that is not what it says it is.
    """
    claim = claimed(filename, media_type)
    if not content:
        return _empty(claim, filename, media_type)
    found = _looks_like(content, claim)
    if found in FORMATS and (claim == found or _allowed(claim, found, filename, media_type)):
        return found if claim is None or found in _ZIP_FORMATS else claim
    if found == "OLE":
        return _ole(content, claim, filename, media_type)
    raise UnsupportedType(_refusal(claim, found, filename, media_type), param="file")


def _empty(claim: str | None, filename: str | None, media_type: str | None) -> str:
    if claim or claims_nothing(filename, media_type):
        return claim or "text"
    raise UnsupportedType(_refusal(None, "", filename, media_type), param="file")


def _allowed(claim: str | None, found: str, filename: str | None, media_type: str | None) -> bool:
    """Text may be any kind of text; bytes that say what they are need no claim, but no contrary one."""
    if claim is None:
        return claims_nothing(filename, media_type)
    if claim == "zip":
        return found in _ZIP_FORMATS
    return claim in _TEXT_FORMATS and found in _TEXT_FORMATS


def _looks_like(content: bytes, claim: str | None) -> str:
    """A format name, `OLE`, or a phrase such as `a PNG image`; the empty string for unknown bytes."""
    head = content[:_SAMPLE]
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(_ZIP):
        return _zip_kind(content, claim)
    if head.startswith(_OLE):
        return "OLE"
    text = is_text(head)
    if claim not in _TEXT_FORMATS and b"%PDF-" in head[:1_024]:
        return "pdf"
    for magic, phrase in _MAGIC:
        if head.startswith(magic) and not (text and magic in _PRINTABLE_MAGIC):
            return phrase
    if head[4:8] == b"ftyp":
        return "an MP4 film or a HEIC image"
    if not text:
        return ""
    if claim == "json" and not _may_be_json(head):
        return "an HTML page" if _is_html(head) else "text that is no JSON"
    return "html" if _is_html(head) else "text"


def _may_be_json(head: bytes) -> bool:
    """Whether the first character of a text in any encoding is one that begins a value."""
    start = head.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1]
    return not start or start in _JSON_STARTS


def _is_html(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    return start.startswith((b"<!doctype html", b"<html")) or (
        start.startswith(b"<?xml") and b"<html" in start
    )


def is_text(sample: bytes) -> bool:
    """Whether bytes read as text in some encoding: a byte-order mark, UTF-16 or -32 by its zeros, or next
    to no control characters."""
    if sample.startswith(_BOMS):
        return True
    if 0 in sample:
        return wide_encoding(sample) is not None
    controls = len(sample) - len(sample.translate(None, _CONTROL))
    return controls * 100 <= len(sample)


def wide_encoding(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte-order mark, recognised by where the zeros of mostly Latin text lie."""
    quarters = [sample[i::4] for i in range(4)]
    zero = [q.count(0) / max(1, len(q)) for q in quarters]
    if zero[0] < 0.1 and min(zero[1:]) > 0.9:
        return "utf-32-le"
    if zero[3] < 0.1 and min(zero[:3]) > 0.9:
        return "utf-32-be"
    even, odd = (zero[0] + zero[2]) / 2, (zero[1] + zero[3]) / 2
    if even < 0.02 and odd > 0.4:
        return "utf-16-le"
    if odd < 0.02 and even > 0.4:
        return "utf-16-be"
    return None


def _zip_kind(content: bytes, claim: str | None) -> str:
    names = _zip_directory(content)
    if names is None:  # Damaged: the parser says so, if this is what was promised.
        return claim if claim in _ZIP_FORMATS and claim else "a damaged ZIP archive"
    typed = _MIMETYPE.match(content[:256])
    if typed and (kind := _MIMETYPES.get(typed[1])):
        return kind
    for name, kind in _ZIP_KINDS:
        if name.search(names):
            opendocument = kind == "an OpenDocument file" and claim in ("odt", "ods", "odp")
            return claim if opendocument and claim else kind
    return "zip"


def _zip_directory(content: bytes) -> bytes | None:
    """The bytes of a ZIP's central directory, which hold its entries' names."""
    tail = content[-(22 + 65_535) :]
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        return None
    size, offset = struct.unpack_from("<II", tail, at + 12)
    end = len(content) - len(tail) + at
    directory = content[max(0, end - size) : end] if offset + size > end else content[offset : offset + size]
    return directory[: 4 * 2**20] or None


def _ole(content: bytes, claim: str | None, filename: str | None, media_type: str | None) -> str:
    """Old Office files, and the container that Office puts around a file with a password."""
    if claim in _OFFICE_FORMATS and _ENCRYPTED_OFFICE in content:
        return claim or ""
    word = "WordDocument".encode("utf-16-le") in content
    if word and (claim == "doc" or claims_nothing(filename, media_type)):
        return "doc"
    if _ENCRYPTED_OFFICE in content:
        raise UnsupportedType(
            f"{_named(filename)} is an Office file with a password. Save it without one.", param="file"
        )
    held = next((k for k, (name, _, _) in enumerate(_OLE_KINDS) if name.encode("utf-16-le") in content), None)
    kind = held if held is not None else _OLE_NAMES.get(extension(filename))
    if kind is None:
        raise UnsupportedType(f"{_named(filename)} is an old Office or Outlook file. {WE_READ}", param="file")
    _, what, way = _OLE_KINDS[kind]
    raise UnsupportedType(f"{_named(filename)} is {what}. {way}", param="file")


def _refusal(claim: str | None, found: str, filename: str | None, media_type: str | None) -> str:
    looks = FORMATS[found].label if found in FORMATS else found
    if claim is None and found in FORMATS:
        said = extension(filename) or media_type
        return f"{_named(filename)} is of type {said!r}, which is not read. {WE_READ}"
    if claim is None:
        return f"{_named(filename)} looks like {looks or 'binary data of no known type'}. {WE_READ}"
    bytes_are = f"its bytes look like {looks}" if looks else "its bytes are of no type we know"
    return f"{_named(filename)} says it is {FORMATS[claim].label}, but {bytes_are}. {WE_READ}"


def _named(filename: str | None) -> str:
    if not filename:
        return "The file"
    name = "".join(c if c.isprintable() else "?" for c in re.split(r"[/\\]", filename)[-1])
    return f"The file {name if len(name) <= 80 else name[:77] + '...'!r}"
