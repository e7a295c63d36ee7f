"""EML: who wrote to whom, when and about what, the text of the message, and its attachments as sections.

Of a message's forms the richest is read, and of the plainer ones what that leaves out. Broken headers and
encodings are read as far as they go.
"""

from __future__ import annotations

import email.header
import email.message
import email.policy
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message

from ingestion.errors import Quarantined
from ingestion.parse.builder import Builder, clean, one_line
from ingestion.parse.html import page
from ingestion.parse.text import decode, plain
from ingestion.parse.within import Within, write_unread
from ingestion.types import Parsed

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_WORD = re.compile(r"\w{3,}")
_ADDRESS = re.compile(r"\b(?:https?|mailto|tel|ftp):\S+|\[image: [^\]]*\]")
_SEVEN_BITS = ("iso-2022-", "utf-7", "hz")
_ENCODINGS = {
    **dict.fromkeys(("iso-8859-8-i", "iso-8859-8-e"), "iso-8859-8"),
    **dict.fromkeys(("iso-8859-6-i", "iso-8859-6-e"), "iso-8859-6"),
    **dict.fromkeys(("shift_jis", "shift-jis", "x-sjis"), "cp932"),
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    **dict.fromkeys(("ks_c_5601-1987", "euc-kr"), "cp949"),
    "windows-874": "cp874",
    "hz-gb-2312": "hz",
}
"""What programs mean by these names: the encoding itself, or a larger one that they use in its place."""
_FLOWED = re.compile(r"(?<=\S) \n(?!>)")


def read(content: bytes, within: Within) -> Parsed:
    builder = Builder()
    try:
        message = email.message_from_bytes(content, policy=email.policy.compat32)
        _Letter(builder, within).write(message, 1)
    except RecursionError:
        raise Quarantined("too_large", "The parts of the message are nested too deeply.") from None
    return builder.build(header(message, "Subject"))


def header(message: Message, name: str) -> str:
    """A header decoded and on one line; whatever is wrong with its encoding stays readable."""
    try:
        raw = message.get(name, "")
        return one_line(clean(_decoded(str(raw))))
    except (ValueError, IndexError):  # Dates and encoded words can be broken in many ways.
        return ""


def _decoded(raw: str) -> str:
    try:
        parts = email.header.decode_header(raw)
    except email.errors.HeaderParseError:
        return raw
    out = []
    for part, encoding in parts:
        out.append(part if isinstance(part, str) else _text_of(part, encoding))
    return "".join(out)


def _text_of(content: bytes, encoding: str | None) -> str:
    """Text in the encoding that a message names. Those of seven bits look like ASCII: no guess finds them."""
    name = (encoding or "").lower()
    name = _ENCODINGS.get(name, name)
    try:
        return content.decode(name, "replace") if name.startswith(_SEVEN_BITS) else decode(content, name)
    except (Quarantined, LookupError, ValueError):
        return content.decode("latin-1")


@dataclass(slots=True)
class _Letter:
    builder: Builder
    within: Within
    count: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)

    def write(self, message: Message, level: int) -> None:
        """The headers, the body, then what is attached."""
        subject = header(message, "Subject")
        self.builder.add("heading", subject, level=level)
        lines = [f"{name}: {value}" for name in _HEADERS[:-1] if (value := header(message, name))]
        self.builder.add("paragraph", "\n".join(lines))
        attached: list[Message] = []
        for text in _bodies(message, attached):
            self.builder.include(text, level)
        for part in attached:
            self._attachment(part, level + 1)
        write_unread(self.builder, self.unread)
        self.unread.clear()

    def _attachment(self, part: Message, level: int) -> None:
        self.count += 1
        name = _filename(part) or f"attachment {self.count}"
        self.within.progress(f"attachment {self.count}")
        if self.within.deepest:
            self.unread.append((name, "it lies too deep within other files"))
            return
        content, media_type = _content(part)
        if part.get_content_type() == "message/rfc822":
            name = _filename(part) or "message.eml"
            media_type = "message/rfc822"
        self.within.spend(len(content))
        if reason := self.within.add(self.builder, content, name, media_type, level=level):
            self.unread.append((name, reason))


def _content(part: Message) -> tuple[bytes, str | None]:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        first = inner[0] if isinstance(inner, list) and inner else None
        return (first.as_bytes() if isinstance(first, Message) else b""), None
    payload = part.get_payload(decode=True)
    return (payload if isinstance(payload, bytes) else b""), part.get_content_type()


def _filename(part: Message) -> str | None:
    try:
        name = part.get_filename()
    except (ValueError, IndexError, LookupError):
        return None
    return one_line(clean(_decoded(str(name)))) or None if name else None


def _bodies(message: Message, attached: list[Message]) -> Iterator[Parsed]:
    """The texts of a message in order; what is no text of it is added to `attached`."""
    stack = [message]
    while stack:
        part = stack.pop()
        kind = part.get_content_type()
        inner = part.get_payload()
        if kind == "multipart/alternative" and isinstance(inner, list):
            yield from _best(_messages(inner), attached)
        elif part.is_multipart() and kind.startswith("multipart/") and isinstance(inner, list):
            stack.extend(reversed(_messages(inner)))
        elif _is_body(part):
            if (parsed := _parsed(part)) is not None:
                yield parsed
        else:
            attached.append(part)


def _messages(parts: list[Message | str]) -> list[Message]:
    return [part for part in parts if isinstance(part, Message)]


def _is_body(part: Message) -> bool:
    if part.get_content_disposition() == "attachment" or _filename(part):
        return False
    return part.get_content_maintype() == "text" or part.get_content_type() == "multipart/alternative"


def _best(forms: list[Message], attached: list[Message]) -> Iterator[Parsed]:
    """The last form is the richest; of the earlier ones, only the blocks with words of their own."""
    kept: list[Parsed] = []
    said: set[str] = set()
    for form in reversed(forms):
        texts = [_unsaid(text, said) for text in _bodies(form, attached)]
        kept = texts + kept
        said.update(word for text in texts for word in _words(text.text))
    yield from kept


def _unsaid(parsed: Parsed, said: set[str]) -> Parsed:
    if not said:
        return parsed
    own = (b for b in parsed.blocks if _words(parsed.text[b.span.start : b.span.end]) - said)
    return replace(parsed, blocks=tuple(own))


def _words(text: str) -> set[str]:
    """Words without addresses, which the richer forms hide behind what they show."""
    return {word.casefold() for word in _WORD.findall(_ADDRESS.sub(" ", text))}


def _parsed(part: Message) -> Parsed | None:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return None
    encoding = part.get_content_charset()
    if part.get_content_type() == "text/html":
        if encoding is None:  # The page may say it.
            with suppress(Quarantined):
                return page(payload, None)
        return page(_text_of(payload, encoding).encode("utf-8", "replace"), "utf-8")
    text = _text_of(payload, encoding)
    if str(part.get_param("format", "")).lower() == "flowed":
        text = _FLOWED.sub(" ", clean(text))
    return plain(decode(text.encode("utf-8", "replace"), "utf-8"))
