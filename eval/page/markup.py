"""HTML that cannot be broken by what it shows: whatever is not `Html` already is text, and is escaped."""

from __future__ import annotations

import html
import re
from pathlib import Path

_CONTROL = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]")
_ALONE = frozenset({"meta", "line", "circle", "rect", "path", "polyline"})


class Html(str):
    """Markup that is safe as it is. Only `tag` and `page` make it."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Html:
    """An element. None is left out, as a child and as an attribute; `class_` and `data_label` are written
    `class` and `data-label`."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    head = "".join(f' {key}="{_escaped(_plain(value))}"' for key, value in pairs if value is not None)
    if name in _ALONE:
        return Html(f"<{name}{head}>" if name == "meta" else f"<{name}{head}/>")
    return Html(f"<{name}{head}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Html:
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children if child))


def page(title: str, *body: str | None) -> str:
    """A whole document in one file: it asks for nothing from anywhere, and runs nothing."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
        ),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        Html(f"<style>\n{style}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *body)), lang='en')}\n"


def _plain(value: str | float) -> str:
    """Coordinates need no more than two decimals."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _escaped(text: str) -> str:
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))
