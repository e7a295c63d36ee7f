"""How commands speak: shared options, JSON or text, a sentence for a failure, exit codes that decide."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

FAILED = 1
USAGE = 2
CANNOT_START = 3
PIPE_WIDTH = 1_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option("--url", help="Address of the service (PLUMBLINE_URL).", show_default=False)
]
Key = Annotated[str | None, typer.Option("--key", help="Key to send (PLUMBLINE_KEY).", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder of the instance (PLUMBLINE_DATA).", show_default=False),
]
Port = Annotated[
    int | None, typer.Option("--port", help="Port of the API (PLUMBLINE_PORT).", show_default=False)
]


def say(line: str) -> None:
    """One line for the person who watches. One who went away is no reason to fail."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show(value: Mapping[str, Any], as_json: bool) -> None:
    """One thing, as JSON or as its fields."""
    if as_json:
        show_json(value)
        return
    for name, field in value.items():
        shown = json.dumps(field, ensure_ascii=False) if isinstance(field, dict | list) else field
        print(f"{name:<14} {'' if shown is None else shown}")


def duration(seconds: float) -> str:
    """As a person says it: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Rows under headings; `empty` is said when there are none. Nothing is cut off: in a terminal it is
    folded, in a pipe a row is a line."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    folded = (Column(name, overflow="fold") for name in columns)
    shown = Table(*folded, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width).print(shown if shown.row_count else Text(empty))


def fail(message: str, code: int = FAILED) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Failures that were foreseen end the command with their sentence and their exit code."""
    from app.child import StartFailed
    from app.cli.client import ClientError
    from app.embedded import EmbeddedError
    from app.errors import AppError
    from app.instance import InstanceError
    from app.release import ReleaseInvalid
    from app.settings import SettingsError
    from ingestion.errors import IngestionError
    from llm.errors import LlmError

    try:
        yield
    except SettingsError as error:
        fail(str(error), USAGE)
    except (InstanceError, EmbeddedError, StartFailed) as error:
        fail(str(error), CANNOT_START)
    except (ClientError, AppError, ReleaseInvalid, IngestionError, LlmError) as error:
        fail(str(error))
    except BrokenPipeError:
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def start_failures() -> Iterator[None]:
    """As `failures`, for a process of the service: what another start would not mend exits with 3,
    a part that cannot be reached with 1: whoever started it tries again."""
    from app.errors import OpenAccessRefused
    from app.release import ReleaseInvalid
    from app.settings import SettingsError
    from app.telemetry import TelemetryError
    from ingestion.errors import IngestionError
    from llm.errors import PromptInvalid
    from retrieval.errors import EmbedderUnavailable, RetrievalError

    try:
        yield
    except (OpenAccessRefused, ReleaseInvalid, PromptInvalid, SettingsError, TelemetryError) as error:
        fail(str(error), CANNOT_START)
    except EmbedderUnavailable as error:
        fail(str(error), CANNOT_START)
    except (IngestionError, RetrievalError) as error:
        fail(str(error))
