"""How commands speak: shared options, JSON or text, a sentence for a failure, exit codes that decide."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from app.printable import readable

FAILED = 1
USAGE = 2
CANNOT_START = 3
PIPE_WIDTH = 1_000
_LINE_BREAK = re.compile(r"\s*[\r\n]\s*")
_NO_MORE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What an output that takes no more says."""

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
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(question: str, otherwise: str) -> None:
    """Go on only if the person says yes. Asked on stderr alone: stdout may be for a program. `otherwise` says
    what then did not happen."""
    print(readable(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
        fail(f"Nobody answered, and {otherwise}. Say --yes where nobody can be asked.", USAGE)
    if answer.strip().lower() not in ("y", "yes"):
        fail(f"{otherwise[0].upper()}{otherwise[1:]}.")


def say(line: str) -> None:
    """One line for the person who watches. One who went away is no reason to fail."""
    with contextlib.suppress(BrokenPipeError):
        print(readable(line), flush=True)


def write(text: str) -> None:
    """A piece of a text that comes bit by bit."""
    print(readable(text), end="", flush=True)


def show_json(value: Any) -> None:
    print(readable(json.dumps(value, indent=2, ensure_ascii=False)))


def show(value: Mapping[str, Any], as_json: bool) -> None:
    """One thing, as JSON or as its fields."""
    if as_json:
        show_json(value)
        return
    for name, field in value.items():
        shown = json.dumps(field, ensure_ascii=False) if isinstance(field, dict | list) else field
        print(f"{name:<14} {'' if shown is None else readable(str(shown))}")


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
        shown.add_row(*(Text("" if cell is None else _in_line(str(cell))) for cell in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width).print(shown if shown.row_count else Text(empty))


def _in_line(text: str) -> str:
    return readable(_LINE_BREAK.sub(" ", text))


def fail(message: str, code: int = FAILED) -> NoReturn:
    with contextlib.suppress(OSError):
        print(readable(message), file=sys.stderr)
    raise typer.Exit(code)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Around all that a process does: characters that the terminal has no code for are escaped, and an
    output that takes no more ends it with a sentence."""
    if sys.stdout is None:  # Closed by whoever started this.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the process lasts
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if not _took_no_more(error):
            raise
        _give_up_output()
        if not isinstance(error, BrokenPipeError):
            with contextlib.suppress(OSError):
                print(_sentence(error), file=sys.stderr)
        raise SystemExit(FAILED) from None


def _took_no_more(error: OSError) -> bool:
    return error.errno in _NO_MORE and error.filename is None


def _give_up_output() -> None:
    """What is left in the buffer would be tried, and complained of, once more at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: OSError) -> str:
    why = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {why}."
    return f"Nothing more can be written: {why}." if _took_no_more(error) else f"{why}."


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Failures that were foreseen end the command with their sentence and their exit code."""
    from app.child import StartFailed
    from app.cli.client import ClientError, Misused
    from app.embedded import EmbeddedError
    from app.errors import AppError
    from app.instance import InstanceError
    from app.release import ReleaseInvalid
    from app.settings import SettingsError
    from ingestion.errors import IngestionError
    from llm.errors import LlmError

    try:
        yield
    except (SettingsError, Misused) as error:
        fail(str(error), USAGE)
    except (InstanceError, EmbeddedError, StartFailed) as error:
        fail(str(error), CANNOT_START)
    except (ClientError, AppError, ReleaseInvalid, IngestionError, LlmError) as error:
        fail(str(error))
    except UnicodeEncodeError as error:
        fail(f"{error.object[error.start : error.end]!a} in what was given is no text in UTF-8.", USAGE)
    except BrokenPipeError:
        _give_up_output()
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if _took_no_more(error):
            _give_up_output()
        fail(_sentence(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def start_failures() -> Iterator[None]:
    """As `failures`, for a process of the service: what another start would not mend exits with 3,
    a part that cannot be reached with 1: whoever started it tries again."""
    from app import otel
    from app.errors import OpenAccessRefused, SchemaNewer
    from app.release import ReleaseInvalid
    from app.settings import SettingsError
    from app.standalone import PortTaken
    from ingestion.errors import IngestionError
    from llm.errors import PromptInvalid
    from retrieval.errors import EmbedderUnavailable, RetrievalError

    try:
        otel.require_usable()
        yield
    except (OpenAccessRefused, ReleaseInvalid, PromptInvalid, SchemaNewer, SettingsError) as error:
        fail(str(error), CANNOT_START)
    except (EmbedderUnavailable, PortTaken) as error:
        fail(str(error), CANNOT_START)
    except (IngestionError, RetrievalError) as error:
        fail(str(error))
