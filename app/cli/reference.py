"""How commands name a release."""

from __future__ import annotations

from typing import Annotated

import typer

Reference = Annotated[
    str, typer.Argument(help="Id, the beginning of one, or name; `champion` is the one that serves.")
]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]
