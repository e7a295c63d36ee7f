"""How commands name a release."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

Reference = Annotated[str, typer.Argument(help="Id, the beginning of one, or name.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]


def at(reference: str, *rest: str) -> str:
    """The address of a release, or of something of it."""
    return "/".join(("/v1/releases", quote(reference, safe=""), *rest))
