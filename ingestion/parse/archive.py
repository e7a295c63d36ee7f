"""ZIP: each file that can be read as a section under its name, the others named with the reason.

A ZIP within a ZIP is opened, one within that is not. Nothing is written anywhere, so that names are only
names. What it may unpack to is bounded before anything is unpacked.
"""

from __future__ import annotations

import io
import zipfile

from ingestion.errors import Quarantined, UnsupportedType
from ingestion.parse.builder import Builder
from ingestion.parse.package import UNREADABLE, check_size, encrypted
from ingestion.parse.within import Within, write_unread
from ingestion.types import Parsed

_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_ENCRYPTED, _UTF8 = 0x1, 0x800
_SHOWN = 5


def read(content: bytes, within: Within) -> Parsed:
    if within.deepest:
        raise Quarantined("too_large", "A ZIP in a ZIP in another file is not opened. Unpack it.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except UNREADABLE as error:
        raise _damaged(error) from None
    check_size(archive, len(content), "ZIP")
    files = [f for f in archive.infolist() if not f.is_dir() and not _is_litter(f.filename)]
    if files and all(f.flag_bits & _ENCRYPTED for f in files):
        raise encrypted("ZIP")
    builder = Builder()
    unread: list[tuple[str, str]] = []
    for number, file in enumerate(files, 1):
        within.progress(f"file {number}")
        if reason := _add(archive, file, builder, within):
            unread.append((_name(file), reason))
    if files and len(unread) == len(files):
        raise _nothing_read(unread)
    write_unread(builder, unread)
    return builder.build(None)


def _add(archive: zipfile.ZipFile, file: zipfile.ZipInfo, builder: Builder, within: Within) -> str | None:
    if file.flag_bits & _ENCRYPTED:
        return "it needs a password"
    within.spend(file.file_size)
    try:
        content = archive.read(file)
    except UNREADABLE as error:
        return f"it is damaged ({type(error).__name__})"
    return within.add(builder, content, _name(file))


def _name(file: zipfile.ZipInfo) -> str:
    """The name; in UTF-8 also where the archive does not say that it is, but it reads as such."""
    if file.flag_bits & _UTF8:
        return file.filename
    try:
        return file.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return file.filename


def _is_litter(name: str) -> bool:
    """What systems add to archives by themselves."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].lower() in _LITTER


def _damaged(error: BaseException) -> Quarantined:
    return Quarantined("damaged", f"The ZIP is damaged ({type(error).__name__}): it cannot be opened.")


def _nothing_read(unread: list[tuple[str, str]]) -> UnsupportedType:
    some = "; ".join(f"{name!r}: {reason}" for name, reason in unread[:_SHOWN])
    return UnsupportedType(f"None of the {len(unread)} files in the ZIP can be read. {some}", param="file")
