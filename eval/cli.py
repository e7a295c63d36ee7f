"""`plumbline eval run | gate | report | ablate`.

Exit codes: 0 passed (or done), 1 failed, 2 cannot judge. `run` ends with 1 when cases were lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from app.release import DEFAULT_RELEASE, ReleaseInvalid, load_release
from eval.ablation import STEPS, Remembering, choose, named
from eval.ablation import ablate as ablate_sets
from eval.cases import limited, load_dataset
from eval.gate import judge
from eval.markdown import report_markdown, verdict_markdown
from eval.report import dump, read, read_report, report_json, verdict_json
from eval.rules import DEFAULT_RULES, load_rules
from eval.run import Progress, evaluate, evaluate_private
from eval.target import HttpTarget
from eval.types import Dataset, EvalError, Report, Verdict
from retrieval.embedders.openvino import OpenVinoEmbedder, find_model
from retrieval.errors import RetrievalError

commands = typer.Typer(
    help="Judge releases: run a data set, compare two runs, read a report.", no_args_is_help=True
)

CANNOT = 2
Out = Annotated[Path | None, typer.Option(help="Where to write it (JSON; Markdown beside it).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command()
def run(
    dataset: Annotated[
        str, typer.Option(help="A shipped data set, or a folder in BEIR's layout.")
    ] = "handbook",
    release: Annotated[Path | None, typer.Option(help="Release file to run in a private instance.")] = None,
    url: Annotated[str | None, typer.Option(help="A running instance that already has the corpus.")] = None,
    key: Annotated[str | None, typer.Option(help="Key for that instance.")] = None,
    model: Annotated[
        str, typer.Option(help="`plumbline` or `plumbline@RELEASE` at that instance.")
    ] = "plumbline",
    out: Annotated[
        Path | None, typer.Option(help="Where to write the report (JSON; Markdown beside it).")
    ] = None,
    limit_cases: Annotated[int | None, typer.Option(min=1, help="Run only this many cases.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Ask every question of a data set and score the answers."""
    with _failures():
        if url and release:
            raise EvalError("Give --release for a private instance or --url for a running one, not both.")
        chosen = limited(load_dataset(dataset), limit_cases)
        with _progress(as_json) as progress:
            target = HttpTarget(url, key, model) if url else None
            report = asyncio.run(_evaluate(release, target, chosen, progress))
    body, text = dump(report_json(report)), report_markdown(report)
    _give(body, text, out or _default_out(report, as_json), as_json)
    raise typer.Exit(1 if _lost(report) else 0)


@commands.command()
def gate(
    baseline: Annotated[Path, typer.Argument(help="Report of the release that serves.")],
    candidate: Annotated[Path, typer.Argument(help="Report of the release that would take its place.")],
    rules: Annotated[Path, typer.Option(help="Margins for each metric.")] = DEFAULT_RULES,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the verdict (JSON; Markdown beside it).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Compare two reports case by case: exit 0 pass, 1 fail, 2 cannot judge."""
    with _failures():
        verdict = judge(read_report(baseline), read_report(candidate), load_rules(rules))
    _give(dump(verdict_json(verdict)), verdict_markdown(verdict), out, as_json)
    raise typer.Exit(0 if verdict.passed else 1)


@commands.command()
def report(
    file: Annotated[Path, typer.Argument(help="A report or a verdict.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show a report or a verdict as Markdown."""
    with _failures():
        found = read(file)
    if isinstance(found, Verdict):
        _give(dump(verdict_json(found)), verdict_markdown(found), None, as_json)
    else:
        _give(dump(report_json(found)), report_markdown(found), None, as_json)


@commands.command("checker")
def check_checker(
    halueval: Annotated[Path | None, typer.Option(help="HaluEval's questions (JSON lines).")] = None,
    qags: Annotated[Path | None, typer.Option(help="QAGS's sentences (JSON lines).")] = None,
    scifact: Annotated[Path | None, typer.Option(help="SciFact's folder, with its claims.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Print weights fitted anew, too.")] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure the check of answers against sentences that people labelled."""
    from eval.measurements import measure_checker

    with _failures(), _progress(as_json) as progress:
        found = measure_checker(progress, halueval=halueval, qags=qags, scifact=scifact, fit=fit)
    _give(found.json, found.markdown, out, as_json)


@commands.command("unanswerable")
def check_unanswerable(
    squad: Annotated[Path, typer.Option(help="SQuAD 2.0's folder, with qa.jsonl.")],
    questions: Annotated[int, typer.Option(min=2, help="Half of them without an answer.")] = 400,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure whether the built-in model declines what the documents do not hold."""
    from eval.measurements import measure_unanswerable

    with _failures(), _progress(as_json) as progress:
        found = measure_unanswerable(progress, squad=squad, questions=questions)
    _give(found.json, found.markdown, out, as_json)


@commands.command("summaries")
def check_summaries(
    squality: Annotated[Path | None, typer.Option(help="SQuALITY's stories (JSON lines).")] = None,
    qmsum: Annotated[Path | None, typer.Option(help="QMSum's meetings (JSON lines).")] = None,
    texts: Annotated[int, typer.Option(min=1, help="So many texts of each, two summaries a text.")] = 5,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure the built-in model's summaries against those that people wrote."""
    from eval.measurements import measure_summaries

    with _failures(), _progress(as_json) as progress:
        found = measure_summaries(progress, squality=squality, qmsum=qmsum, texts=texts)
    _give(found.json, found.markdown, out, as_json)


@commands.command()
def ablate(
    folders: Annotated[list[Path], typer.Argument(help="Data sets in BEIR's layout.")],
    release: Annotated[Path, typer.Option(help="Release file to take apart.")] = DEFAULT_RELEASE,
    steps: Annotated[str, typer.Option(help="Which rows, separated by commas.")] = ",".join(STEPS),
    cache: Annotated[Path, typer.Option(help="Folder that keeps what was embedded.")] = Path(
        ".plumbline/ablation"
    ),
    most_cases: Annotated[
        int, typer.Option(min=1, help="Questions of each data set, spread evenly.")
    ] = 1_200,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the table (JSON; Markdown beside it).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Score search on data sets, one step of it added after the other."""
    with _failures():
        datasets = {
            name: limited(load_dataset(str(folder)), most_cases) for name, folder in named(folders).items()
        }
        chosen, loaded = choose(steps), load_release(release)
        name = loaded.body.index.embedder
        embedder = OpenVinoEmbedder.load(find_model(name, None), cache, name)
        with _progress(as_json) as progress:
            table = asyncio.run(ablate_sets(datasets, loaded, Remembering(embedder, cache), chosen, progress))
    _give(table.json(), table.markdown(), out, as_json)


@commands.command("search")
def measure_search(
    folders: Annotated[list[Path], typer.Argument(help="Data sets in BEIR's layout.")],
    release: Annotated[Path | None, typer.Option(help="Release file to search with.")] = None,
    most_cases: Annotated[
        int | None, typer.Option(min=1, help="Questions of each data set, spread evenly; by default all.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Score what a private instance finds, and each arm of its search alone, over HTTP."""
    from eval.searches import measure

    with _failures():
        datasets = {
            name: limited(load_dataset(str(folder)), most_cases) for name, folder in named(folders).items()
        }
        with _progress(as_json) as progress:
            table = asyncio.run(measure(datasets, release, progress))
    _give(table.json(), table.markdown(), out, as_json)


@commands.command("context")
def measure_context(
    folders: Annotated[list[str], typer.Argument(help="Data sets: folders, or the name of a shipped one.")],
    release: Annotated[Path, typer.Option(help="Release file whose context it is.")] = DEFAULT_RELEASE,
    most_cases: Annotated[int, typer.Option(min=1, help="Questions of each, spread evenly.")] = 1_000,
    copies: Annotated[int, typer.Option(min=1, help="Hold every document so many times.")] = 1,
    cache: Annotated[Path, typer.Option(help="Folder that keeps what was embedded.")] = Path(
        ".plumbline/ablation"
    ),
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much of the gold text is among the passages that a model is given."""
    from eval.measurements import measure_contexts

    with _failures(), _progress(as_json) as progress:
        found = measure_contexts(
            progress, sources=folders, release=release, most=most_cases, copies=copies, cache=cache
        )
    _give(found.json, found.markdown, out, as_json)


async def _evaluate(
    release: Path | None, target: HttpTarget | None, dataset: Dataset, progress: Progress
) -> Report:
    product = version("plumbline")
    if target is None:
        return await evaluate_private(release, dataset, product=product, progress=progress)
    async with target:
        return await evaluate(target, dataset, await target.release(), product=product, progress=progress)


def _lost(report: Report) -> bool:
    return bool(report.error) or any(result.sample.errors for result in report.results)


def _default_out(report: Report, as_json: bool) -> Path | None:
    return None if as_json else Path(f"eval-{report.dataset.name}-{report.release.id}.json")


def _give(body: str, text: str, out: Path | None, as_json: bool) -> None:
    """Write both forms when there is a place for them, and print the one that was asked for."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(body, encoding="utf-8")
        out.with_suffix(".md").write_text(text, encoding="utf-8")
        typer.echo(f"Written: {out} and {out.with_suffix('.md')}", err=True)
    typer.echo(body if as_json else text, nl=False)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A bar for each step, on stderr, with the time that is left; nothing where nobody watches."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield show


@contextmanager
def _failures() -> Iterator[None]:
    """What went wrong, in one sentence, and the exit code for "cannot judge"."""
    try:
        yield
    except (EvalError, ReleaseInvalid, RetrievalError) as error:
        typer.echo(f"plumbline eval: {error}", err=True)
        raise typer.Exit(CANNOT) from None
    except ModuleNotFoundError as error:
        typer.echo(f"plumbline eval: {error}. Install it with `pip install 'plumbline[eval]'`.", err=True)
        raise typer.Exit(CANNOT) from None
