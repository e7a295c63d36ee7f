"""Spreadsheet numbers as the sheet shows them: dates, percentages, currencies, digits after the point.

Covers what ECMA-376 part 1, 18.8.30 and 18.8.31 define, but for fractions, fill and padding; a number whose
format is beyond that is shown in full. Names of days and months are English, as the format says them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

BUILT_IN = {
    1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00",
    14: "yyyy-mm-dd", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM",
    20: "h:mm", 21: "h:mm:ss", 22: "yyyy-mm-dd h:mm", 37: "#,##0", 38: "#,##0", 39: "#,##0.00",
    40: "#,##0.00", 45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@",
}  # fmt: skip
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - a sheet's dates have no zone.
_SHIFT_1904 = 1462
_KNOWN = 50_000
"""Numbers whose text is kept: sheets repeat dates and amounts."""
_MAX_SERIAL = 2_958_466
_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"?|\\(?P<escaped>.)|_.|\*.|\[(?P<bracket>[^\]]*)\]'
    r"|(?P<ampm>AM/PM|A/P)|(?P<date>[yY]+|[mM]+|[dD]+|[hH]+|[sS]+)(?P<fraction>\.0+)?"
    r"|(?P<exponent>[eE][+-]0+)|(?P<digits>[0#?][0#?,]*(?:\.[0#?]*)?|\.[0#?]+)(?P<scale>,*)"
    r"|(?P<general>General)|(?P<other>.)",
    re.DOTALL,
)
_ELAPSED = re.compile(r"h+|m+|s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    fraction: int = 0


class Formats:
    """The number formats of a workbook, by the index of a cell's style."""

    def __init__(self, codes: list[str], *, from_1904: bool) -> None:
        self._sections = [_sections(code) for code in codes]
        self._known: dict[tuple[str, int], str] = {}
        self._shift = _SHIFT_1904 if from_1904 else 0

    def show(self, raw: str, style: int) -> str:
        """A number's text in the file as its cell shows it."""
        sections = self._sections[style] if 0 <= style < len(self._sections) else None
        if sections is None:
            return plain(raw)
        known = self._known.get((raw, style))
        if known is None:
            known = self._formatted(raw, sections)
            if len(self._known) < _KNOWN:
                self._known[raw, style] = known
        return known

    def _formatted(self, raw: str, sections: list[list[_Token]]) -> str:
        try:
            value = Decimal(raw)
            if not value.is_finite() or abs(value.adjusted()) > 300:
                return raw
            return self._shown(value, sections)
        except (InvalidOperation, OverflowError, ValueError):
            return raw

    def _shown(self, value: Decimal, sections: list[list[_Token]]) -> str:
        at = 1 if value < 0 and len(sections) > 1 else 2 if value == 0 and len(sections) > 2 else 0
        tokens = sections[at]
        if any(t.kind in ("date", "elapsed") for t in tokens):
            return _date(float(value) + self._shift, tokens) or plain(str(value))
        if not any(t.kind in ("digits", "general") for t in tokens):
            words = "".join(t.text for t in tokens if t.kind == "literal")
            return words.strip() or plain(str(value))
        return _number(abs(value) if at == 1 else value, tokens)


def plain(raw: str) -> str:
    """A number without a format: at most 15 digits, no exponent where it can be read without."""
    if raw.isascii() and raw.isdigit() and len(raw) < 16 and raw[0] != "0":
        return raw
    try:
        value = float(raw)
    except ValueError:
        return raw
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}"


def _sections(code: str) -> list[list[_Token]] | None:
    """The parts of a format for positive, negative and zero; None for one that changes nothing."""
    if code in ("", "General", "@"):
        return None
    return [_tokens(part) for part in _split(code)][:3]


def _split(code: str) -> list[str]:
    parts = re.findall(r'(?:"[^"]*"?|\\.|\[[^\]]*\]|[^;])+|(?<=;)(?=;|$)', code)
    return parts or [code]


def _tokens(part: str) -> list[_Token]:
    tokens: list[_Token] = []
    for found in _TOKEN.finditer(part):
        kind = found.lastgroup or ""
        if found["bracket"] is not None:
            tokens.extend(_bracket(found["bracket"]))
        elif found["date"] is not None:
            tokens.append(_Token("date", found["date"].lower(), len(found["fraction"] or ".") - 1))
        elif found["digits"] is not None:
            scale = len(found["scale"]) + len(found["digits"]) - len(found["digits"].rstrip(","))
            tokens.append(_Token("digits", found["digits"].rstrip(","), scale))
        elif kind in ("ampm", "exponent", "general"):
            tokens.append(_Token(kind, found[kind]))
        elif kind == "other" and found["other"] == "%":
            tokens.append(_Token("percent", "%"))
        elif kind in ("quoted", "escaped", "other"):
            tokens.append(_Token("literal", found[kind]))
    return tokens


def _bracket(inside: str) -> list[_Token]:
    """A currency, an elapsed time; colours and conditions say nothing."""
    if inside.startswith("$"):
        return [_Token("literal", inside[1:].split("-")[0])]
    return [_Token("elapsed", inside.lower())] if _ELAPSED.fullmatch(inside) else []


def _number(value: Decimal, tokens: list[_Token]) -> str:
    digits = [t for t in tokens if t.kind == "digits"]
    shift = 2 * sum(t.kind == "percent" for t in tokens) - 3 * sum(t.fraction for t in digits)
    value = value.scaleb(shift)
    exponent = next((t.text for t in tokens if t.kind == "exponent"), None)
    if len(digits) > 1 or any(t.text == "/" for t in tokens):  # Fractions, telephone numbers and such.
        return plain(str(value))
    out, sign = [], "-" if value < 0 else ""
    for token in tokens:
        if token.kind == "digits":
            out.append(_digits(abs(value), token.text, exponent))
        elif token.kind == "general":
            out.append(plain(str(abs(value))))
        elif token.kind in ("literal", "percent"):
            out.append(token.text)
    text = "".join(out).strip()
    return sign + text if any(c in "123456789" for c in text) else text


def _digits(value: Decimal, code: str, exponent: str | None) -> str:
    whole, _, after = code.partition(".")
    if exponent is not None:
        return f"{value:.{len(after)}E}"
    value = value.quantize(Decimal(1).scaleb(-len(after)), ROUND_HALF_UP)
    text = f"{value:,f}" if "," in whole else f"{value:f}"
    head, _, tail = text.partition(".")
    head = head.rjust(whole.count("0"), "0")
    wanted = len(after.rstrip("#?"))
    while len(tail) > wanted and tail.endswith("0"):
        tail = tail[:-1]
    return f"{head}.{tail}" if tail else head


def _date(serial: float, tokens: list[_Token]) -> str | None:
    """None for a number that is no date."""
    if not 0 <= serial < _MAX_SERIAL:
        return None
    parts = [t for t in tokens if t.kind in ("date", "elapsed")]
    decimals = max((t.fraction for t in parts), default=0)
    unit = 10**decimals
    moment = _EPOCH + timedelta(seconds=round(serial * 86_400 * unit) / unit)
    if serial < 60:  # The sheet's calendar has a 29 February 1900.
        moment += timedelta(days=1) if serial >= 1 else timedelta()
    half = any(t.kind == "ampm" for t in tokens)
    out: list[str] = []
    for at, token in enumerate(tokens):
        if token.kind == "elapsed":
            out.append(_elapsed(serial, token.text))
        elif token.kind == "ampm":
            out.append("AM" if moment.hour < 12 else "PM")
        elif token.kind == "date":
            out.append(_field(moment, token, half, minutes=_is_minutes(tokens, at)))
        elif token.kind == "literal":
            out.append(token.text)
    return "".join(out).strip()


def _is_minutes(tokens: list[_Token], at: int) -> bool:
    """`m` next to hours or seconds means minutes."""
    before = next((t.text for t in reversed(tokens[:at]) if t.kind in ("date", "elapsed")), "")
    after = next((t.text for t in tokens[at + 1 :] if t.kind in ("date", "elapsed")), "")
    return before.startswith("h") or after.startswith("s")


def _field(moment: datetime, token: _Token, half: bool, *, minutes: bool) -> str:
    first, width = token.text[0], len(token.text)
    if first == "y":
        return f"{moment.year % 100:02}" if width <= 2 else f"{moment.year:04}"
    if first == "m" and not minutes:
        return f"{moment.month:0{min(width, 2)}}" if width <= 2 else _name(moment, "%b", "%B", width)
    if first == "d":
        return f"{moment.day:0{min(width, 2)}}" if width <= 2 else _name(moment, "%a", "%A", width)
    hour = (moment.hour % 12 or 12) if half else moment.hour
    number = {"h": hour, "m": moment.minute, "s": moment.second}[first]
    text = f"{number:0{min(width, 2)}}"
    part = f"{moment.microsecond:06}"[: token.fraction]
    return f"{text}.{part}" if part else text


def _name(moment: datetime, short: str, long: str, width: int) -> str:
    if width == 5:
        return moment.strftime(long)[0]
    return moment.strftime(short if width == 3 else long)


def _elapsed(serial: float, unit: str) -> str:
    seconds = round(serial * 86_400)
    divisor = {"h": 3_600, "m": 60, "s": 1}[unit[0]]
    return f"{seconds // divisor:0{len(unit)}}"
