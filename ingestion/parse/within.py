"""Files within files: attachments, members of an archive, embedded documents.

Each becomes a section under a heading with its name. How deep and how much is one budget for the whole
document, whatever its kinds of containers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ingestion.errors import Quarantined, UnsupportedType
from ingestion.parse.builder import Builder, one_line
from ingestion.parse.formats import WE_READ
from ingestion.types import Parsed

MAX_DEPTH = 2
"""Containers within the outermost one that are opened, one in the other."""
MAX_BYTES = 256 * 2**20
MAX_FILES = 2_000

Reader = Callable[[bytes, "Within"], Parsed]
"""Reads a file. Raises `Quarantined` for one that never can be read."""


@dataclass(slots=True)
class _Budget:
    bytes: int = MAX_BYTES
    files: int = MAX_FILES


@dataclass(frozen=True, slots=True)
class Within:
    """What a reader knows besides the bytes: what its file is called, where it lies, and how the files within
    it are read. `place` is told to whoever watches."""

    read: Reader
    watch: Callable[[str], None]
    filename: str | None = None
    media_type: str | None = None
    place: str = ""
    depth: int = 0
    left: _Budget = field(default_factory=_Budget)

    def progress(self, part: str) -> None:
        self.watch(f"{self.place}, {part}" if self.place else part)

    @property
    def deepest(self) -> bool:
        return self.depth >= MAX_DEPTH

    def spend(self, size: int) -> None:
        """Count a file and its bytes before it is unpacked. Raises `Quarantined`."""
        self.left.files -= 1
        self.left.bytes -= size
        if self.left.files < 0 or self.left.bytes < 0:
            raise Quarantined(
                "too_large",
                f"The document holds over {MAX_FILES:,} files or {MAX_BYTES >> 20} MiB of them. Split it.",
                self.place or None,
            )

    def add(
        self,
        builder: Builder,
        content: bytes,
        name: str,
        media_type: str | None = None,
        *,
        heading: str | None = None,
        level: int = 1,
    ) -> str | None:
        """Write a file as a section; a sentence why not when it cannot be read."""
        inner = replace(self, filename=name, media_type=media_type, place=name, depth=self.depth + 1)
        inner.watch(name)
        try:
            parsed = self.read(content, inner)
        except (Quarantined, UnsupportedType) as error:
            if self.left.files < 0 or self.left.bytes < 0:
                raise
            return one_line(str(error).removesuffix(WE_READ))
        builder.add("heading", heading or name, level=level)
        builder.include(parsed, level, name)
        return None


def write_unread(builder: Builder, unread: list[tuple[str, str]]) -> None:
    """Name the files that could not be read, with the reasons: in one block, and as notes."""
    if unread:
        lines = [f"- {one_line(name)}: {reason}" for name, reason in unread]
        builder.add("list", "\n".join(["Not read:", *lines]))
        for name, reason in unread:
            builder.note(f"{name} was not read: {reason}")
