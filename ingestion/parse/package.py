"""Files that are ZIP packages of XML parts: opened with bounds, every failure typed.

Office Open XML, OpenDocument and EPUB are read through this. Strict OOXML is given the names of the usual
one, so that readers know only those. No part is unpacked before the package's declared sizes are accepted.
"""

from __future__ import annotations

import io
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from ingestion.errors import Quarantined

MAX_UNPACKED = 256 * 2**20
MAX_RATIO = 200
MAX_PARTS = 10_000
MAX_XML = 64 * 2**20
"""Bytes of a part that is held as a tree; larger ones can only be read as a stream."""
_HARMLESS = 16 * 2**20
_OLE = b"\xd0\xcf\x11\xe0"  # What Office puts around a package with a password.
_STRICT = b"http://purl.oclc.org/ooxml/"
_STRICT_NAMES = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")
_USUAL = rb"http://schemas.openxmlformats.org/\1/2006/"
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    ValueError,
    NotImplementedError,  # An unknown way of packing.
    RuntimeError,  # A part with a password.
    OSError,
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A link from one part to another. `kind` is the last word of its type; `target` a part's name."""

    kind: str
    target: str


class Package:
    """The parts of one file. `label` names its format in errors."""

    def __init__(self, content: bytes, label: str) -> None:
        self._label = label
        if content.startswith(_OLE):
            raise encrypted(label)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except UNREADABLE as error:
            raise self.damaged(error) from None
        check_size(self._zip, len(content), label)
        self._names = {part.filename for part in self._zip.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except UNREADABLE as error:
            raise self.damaged(error) from None

    def xml(self, name: str) -> etree._Element:
        """The root of a part. Raises `Quarantined` when it is missing, broken or too large for a tree."""
        if name in self._names and self._zip.getinfo(name).file_size > MAX_XML:
            raise Quarantined(
                "too_large", f"A part of the {self._label} has more than {MAX_XML >> 20} MiB. Split it.", name
            )
        try:
            return etree.fromstring(usual_names(self.read(name)), _parser())
        except (etree.LxmlError, ValueError) as error:
            raise self.damaged(error) from None

    def optional(self, name: str | None) -> etree._Element | None:
        """The root of a part that a document can be read without."""
        try:
            return self.xml(name) if name in self._names and name else None
        except Quarantined:
            return None

    def elements(self, name: str, *tags: str) -> Iterator[etree._Element]:
        """These elements of a part in their order, each emptied when the next is asked for: for parts that
        may be too large for a tree. None of them may lie in another."""
        try:
            with self._zip.open(name) as stream:
                found = etree.iterparse(
                    stream, events=("end",), tag=tags, resolve_entities=False, no_network=True
                )
                for _, element in found:
                    yield element
                    element.clear()
                    parent = element.getparent()
                    while parent is not None and element.getprevious() is not None:
                        del parent[0]
        except (etree.LxmlError, *UNREADABLE) as error:
            raise self.damaged(error) from None

    def relations(self, part: str) -> Mapping[str, Relation]:
        """The links of a part by their id; of the package itself with ``""``. External ones are left out."""
        folder, _, base = part.rpartition("/")
        root = self.optional(f"{folder}/_rels/{base}.rels".removeprefix("/") if part else "_rels/.rels")
        if root is None:
            return {}
        return {
            link.get("Id", ""): Relation(
                link.get("Type", "").rpartition("/")[2],
                posixpath.normpath(posixpath.join("/", folder, link.get("Target", ""))).lstrip("/"),
            )
            for link in root.iter("{*}Relationship")
            if link.get("TargetMode") != "External"
        }

    def main(self, usual: str) -> str:
        """The name of an OOXML package's main part; the usual one when the package does not say."""
        named = (r.target for r in self.relations("").values() if r.kind == "officeDocument")
        found = next((name for name in named if name in self._names), usual)
        if found not in self._names:
            raise Quarantined("damaged", f"The {self._label} is damaged: it has no main part.")
        return found

    def title(self) -> str | None:
        """The title in an OOXML package's properties."""
        named = (r.target for r in self.relations("").values() if r.kind == "core-properties")
        core = self.optional(next(named, "docProps/core.xml"))
        return None if core is None else core.findtext("{http://purl.org/dc/elements/1.1/}title")

    def damaged(self, error: BaseException) -> Quarantined:
        return Quarantined(
            "damaged", f"The {self._label} is damaged ({type(error).__name__}): it cannot be opened."
        )


def linked(relations: Mapping[str, Relation], kind: str) -> str | None:
    """The first part that is linked as this kind."""
    return next((r.target for r in relations.values() if r.kind == kind), None)


def check_size(package: zipfile.ZipFile, packed: int, label: str) -> None:
    """Refuse what would unpack to far more than it is, before anything is unpacked.

    zipfile never yields more of a part than it declares, so the declared sizes can be relied on.
    """
    parts = package.infolist()
    unpacked = sum(part.file_size for part in parts)
    bomb = unpacked > _HARMLESS and unpacked > MAX_RATIO * packed
    if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED or bomb:
        raise Quarantined(
            "too_large", f"The {label} would unpack to {unpacked:,} bytes in {len(parts):,} parts. Split it."
        )


def encrypted(label: str) -> Quarantined:
    return Quarantined("encrypted", f"The {label} needs a password. Save it without one.")


def usual_names(xml: bytes) -> bytes:
    """Strict OOXML's namespaces as those of the usual one."""
    return _STRICT_NAMES.sub(_USUAL, xml) if _STRICT in xml else xml


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
