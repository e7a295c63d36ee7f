"""`plumbline release report`: the draft of a post-mortem of a release's last trial that ended badly."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli import console
from app.cli.reference import Reference

commands = typer.Typer(add_completion=False)


class Form(StrEnum):
    markdown = "markdown"
    html = "html"
    json = "json"


_SUFFIXES = {Form.markdown: ".md", Form.html: ".html", Form.json: ".json"}


@commands.command()
def report(
    release: Reference,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write it: Markdown, HTML and JSON beside each other.", show_default=False
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="What is printed.")] = Form.markdown,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    url: console.Url = None,
    key: console.Key = None,
    data: console.Data = None,
) -> None:
    """Draft the post-mortem of a release's last trial that was rolled back or failed."""
    from app.cli.client import connect
    from eval.outputs import write_beside
    from eval.trialrecord import record
    from eval.types import EvalError

    try:
        with console.failures(), connect(url, key, data) as client:
            forms = _forms(record(client, release))
        if out is not None:
            written = write_beside(out, {_SUFFIXES[one]: text for one, text in forms.items()})
            typer.echo(f"Written: {', '.join(map(str, written))}", err=True)
    except EvalError as error:
        console.fail(str(error))
    typer.echo(forms[Form.json if as_json else form], nl=False)


def _forms(body: dict[str, object]) -> dict[Form, str]:
    import json

    from eval.page.postmortem import postmortem_html
    from eval.postmortem import postmortem, postmortem_markdown

    found = postmortem(body)
    return {
        Form.markdown: postmortem_markdown(found),
        Form.html: postmortem_html(found),
        Form.json: json.dumps(body, indent=2, ensure_ascii=False) + "\n",
    }
