"""`plumbline eval run | import | gate | report | log | index | forget`; `measurecommands` has what measures.

Exit codes: 0 passed (or done), 1 failed, 2 cannot judge. `run` ends with 1 when answers or scores were lost.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import address, bearer
from eval import console, measurecommands
from eval.cases import limited, load_dataset
from eval.forgetting import forget
from eval.forms import Form, rendered
from eval.gate import judge
from eval.history import write_index
from eval.judge import Judge, JudgeSettings, judge_settings
from eval.outputs import require_folder
from eval.report import read, read_report
from eval.rules import DEFAULT_RULES, load_rules
from eval.run import Progress, evaluate, evaluate_private
from eval.target import HttpTarget
from eval.types import Dataset, EvalError, Outcome, Report
from eval.wording import TITLES, headline, sentence
from ingestion.receipts import Receipts, found

commands = typer.Typer(
    help="Judge releases: run a data set, compare two runs, read a report.",
    no_args_is_help=True,
    add_completion=False,
)

commands.add_typer(measurecommands.commands)

_CODES: dict[Outcome, int] = {"passed": 0, "failed": 1, "no_verdict": console.CANNOT}


class Source(StrEnum):
    """Forms of question sets that can be made into data sets."""

    squad = "squad"


@commands.command()
def run(
    dataset: Annotated[
        str,
        typer.Option(
            help="A shipped data set, or a folder: one of your own (dataset.toml and cases.jsonl, as "
            "eval/README.md says), or in BEIR's layout."
        ),
    ] = "handbook",
    release: Annotated[Path | None, typer.Option(help="Release file to run in a private instance.")] = None,
    url: Annotated[str | None, typer.Option(help="A running instance that already has the corpus.")] = None,
    key: Annotated[str | None, typer.Option(help="Key for that instance.")] = None,
    model: Annotated[
        str, typer.Option(help="`plumbline` or `plumbline@RELEASE` at that instance.")
    ] = "plumbline",
    out: Annotated[
        Path | None,
        typer.Option(
            callback=console.room, help="Where to write the report (JSON; Markdown and HTML beside it)."
        ),
    ] = None,
    limit_cases: Annotated[int | None, typer.Option(min=1, help="Run only this many cases.")] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(envvar="PLUMBLINE_JUDGE_URL", help="Server of a model that judges; ends in /v1."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(envvar="PLUMBLINE_JUDGE_MODEL", help="That model's name.")
    ] = None,
    judge_key: Annotated[str | None, typer.Option(envvar="PLUMBLINE_JUDGE_KEY", help="Its key.")] = None,
    judge_repeats: Annotated[
        int,
        typer.Option(min=1, envvar="PLUMBLINE_JUDGE_REPEATS", help="How often each verdict is asked for."),
    ] = 1,
    judge_cache: Annotated[Path, typer.Option(help="Folder that keeps verdicts.")] = Path(".plumbline/judge"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Ask every question of a data set and score the answers: exit 0 when every answer came and has its
    scores, 1 when some were lost (the judge was away, say; the report is written), 2 without a run."""
    from eval.events import tell, telling

    with console.failures():
        if url and release:
            raise EvalError("Give --release for a private instance or --url for a running one, not both.")
        if not (out or as_json):
            require_folder(Path())
        chosen = limited(load_dataset(dataset), limit_cases)
        settings = judge_settings(
            url=judge_url, model=judge_model, key=judge_key, repeats=judge_repeats, cache=judge_cache
        )
        if find_spec("ragas") is None:
            raise ModuleNotFoundError("answers are scored by RAGAS, which is not installed")
        with telling(os.environ) as events:
            with console.progress(as_json) as progress:
                target = HttpTarget(address(url), key and bearer(key), model) if url else None
                report = asyncio.run(_evaluate(release, target, chosen, progress, settings))
            if events is not None:
                tell(report, events)
    console.give_found(report, out or _default_out(report, as_json), Form.json if as_json else Form.markdown)
    lost = _lost(report)
    if lost:
        typer.echo(f"plumbline eval: {lost}", err=True)
    raise typer.Exit(1 if lost else 0)


@commands.command("import")
def import_(
    form: Annotated[Source, typer.Argument(help="What the folder is in the form of.")],
    folder: Annotated[Path, typer.Argument(help="Folder with corpus.jsonl and qa.jsonl.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the data set to.")],
    questions: Annotated[int, typer.Option(min=1, help="At most so many, spread evenly.")] = 500,
    language: Annotated[str, typer.Option(help="Code of the questions' language.")] = "en",
    licence: Annotated[str, typer.Option(help="Licence of the source.")] = "see the source",
) -> None:
    """Make a data set for `run --dataset` of questions that others wrote. One of your own needs none of this:
    eval/README.md."""
    from eval.squad import import_squad

    with console.failures():
        made = import_squad(folder, out, questions=questions, language=language, licence=licence)
    typer.echo(f"Written: {out}, {len(made.cases)} cases on {len(made.documents)} documents ({form.value})")


@commands.command()
def gate(
    baseline: Annotated[Path, typer.Argument(help="Report of the release that serves.")],
    candidate: Annotated[Path, typer.Argument(help="Report of the release that would take its place.")],
    rules: Annotated[Path, typer.Option(help="Margins for each metric.")] = DEFAULT_RULES,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=console.room,
            help="Where to write the verdict (JSON; Markdown, HTML and JUnit XML beside it).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Compare two reports case by case: exit 0 pass, 1 fail, 2 cannot judge or no verdict."""
    with console.failures():
        verdict = judge(read_report(baseline), read_report(candidate), load_rules(rules))
    console.give_found(verdict, out, Form.json if as_json else Form.markdown)
    # In a terminal the beginning is far above by now.
    typer.echo(f"{TITLES[verdict.outcome]}: {headline(verdict)}. {sentence(verdict)}", err=True)
    raise typer.Exit(_CODES[verdict.outcome])


@commands.command()
def report(
    file: Annotated[Path, typer.Argument(help="A report or a verdict.")],
    form: Annotated[Form, typer.Option("--format", help="JUnit XML is for verdicts.")] = Form.markdown,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show a report or a verdict."""
    with console.failures():
        text = rendered(read(file), Form.json if as_json else form)
    typer.echo(text, nl=False)


@commands.command("log")
def log_run(
    file: Annotated[Path, typer.Argument(help="The report of a run.")],
    mlflow: Annotated[str, typer.Option(help="MLflow's tracking server (http://...), or a folder of its.")],
    experiment: Annotated[str, typer.Option(help="Made where there is none of this name.")] = "plumbline",
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's id as JSON.")] = False,
) -> None:
    """Log a run to MLflow: release, data set, each metric with its interval, and the report."""
    from eval.tracking import log

    with console.failures(), console.needing("mlflow"):
        run = log(read_report(file), mlflow, experiment)
    typer.echo(json.dumps({"run": run}) if as_json else f"Logged: run {run} at {mlflow}")


@commands.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Where runs and verdicts were written.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the page's path as JSON.")] = False,
) -> None:
    """Write one page of all runs and verdicts in a folder, newest first, with their trends."""
    with console.failures():
        path = write_index(folder)
    typer.echo(json.dumps({"index": str(path)}) if as_json else f"Written: {path}")


@commands.command("forget")
def forget_erased(
    folder: Annotated[Path, typer.Argument(help="Where runs were written, and the verdicts on them.")],
    receipts: Annotated[list[Path], typer.Argument(help="Receipts of erasures, or folders of them.")],
    as_json: console.AsJson = False,
) -> None:
    """Take the text of answers that were made from erased documents out of reports and verdicts."""
    kept = Receipts(str(receipts[0] if receipts[0].is_dir() else receipts[0].parent))
    with console.failures():
        done = forget(folder, [kept.read(path) for path in found(receipts)])
    told = f"{done.answers} answers in {done.reports} reports and verdicts lost their text"
    typer.echo(json.dumps(asdict(done)) if as_json else told)


async def _evaluate(
    release: Path | None,
    target: HttpTarget | None,
    dataset: Dataset,
    progress: Progress,
    settings: JudgeSettings | None,
) -> Report:
    product = version("plumbline")
    async with AsyncExitStack() as stack:
        asked = await stack.enter_async_context(Judge(settings)) if settings else None
        if target is None:
            return await evaluate_private(release, dataset, product=product, progress=progress, judge=asked)
        await stack.enter_async_context(target)
        ref = await target.release()
        return await evaluate(target, dataset, ref, product=product, progress=progress, judge=asked)


def _lost(report: Report) -> str:
    """What makes this run no success, in a sentence; empty if nothing does."""
    if report.error:
        return report.error
    unanswered = [one for one in report.results if one.sample.errors]
    faults = [
        {score.fault for score in one.scores.values() if score.value is None}
        for one in report.results
        if not one.sample.errors
    ]
    lost = {
        "had a request that failed": len(unanswered),
        "have a score that the judge did not give": sum("judge" in one for one in faults),
        "have a score that could not be told": sum("release" in one for one in faults),
    }
    told = [f"{count} of {len(report.results)} cases {what}" for what, count in lost.items() if count]
    return f"{'; '.join(told)}." if told else ""


def _default_out(report: Report, as_json: bool) -> Path | None:
    return None if as_json else Path(f"eval-{report.dataset.name}-{report.release.id}.json")
