"""`plumbline eval run | import | gate | report | log | index | simulate | ablate`.

Exit codes: 0 passed (or done), 1 failed, 2 cannot judge. `run` ends with 1 when answers or scores were lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from app.cli.client import Misused, address, bearer
from app.release import DEFAULT_RELEASE, ReleaseInvalid, load_release
from app.settings import SettingsError
from eval.ablation import STEPS, Remembering, choose, named
from eval.ablation import ablate as ablate_sets
from eval.cases import limited, load_dataset
from eval.encoders import encoder
from eval.forgetting import forget
from eval.forms import Form, rendered, write
from eval.gate import judge
from eval.history import write_index
from eval.judge import Judge, JudgeSettings, judge_settings
from eval.outputs import require_folder, write_beside
from eval.report import read, read_report
from eval.rules import DEFAULT_RULES, load_rules
from eval.run import Progress, evaluate, evaluate_private
from eval.table import Table
from eval.target import HttpTarget
from eval.types import Dataset, EvalError, Outcome, Report, Verdict
from eval.wording import TITLES, headline, sentence
from ingestion.errors import IngestionError
from ingestion.receipts import Receipts, found
from retrieval.errors import RetrievalError

commands = typer.Typer(
    help="Judge releases: run a data set, compare two runs, read a report.",
    no_args_is_help=True,
    add_completion=False,
)

CANNOT = 2
INSTALL = f"{shlex.quote(sys.executable)} -m pip install 'plumbline[eval]' (in a checkout: make eval)"
"""pip takes the extra of the Plumbline that is there."""
_CODES: dict[Outcome, int] = {"passed": 0, "failed": 1, "no_verdict": CANNOT}


class Source(StrEnum):
    """Forms of question sets that can be made into data sets."""

    squad = "squad"


def _room(out: Path | None) -> Path | None:
    """A place that takes no file ends the command before its work begins."""
    if out is not None:
        with _failures():
            require_folder(out.parent)
    return out


Out = Annotated[
    Path | None, typer.Option(callback=_room, help="Where to write it (JSON; Markdown beside it).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
        typer.Option(callback=_room, help="Where to write the report (JSON; Markdown and HTML beside it)."),
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

    with _failures():
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
            with _progress(as_json) as progress:
                target = HttpTarget(address(url), key and bearer(key), model) if url else None
                report = asyncio.run(_evaluate(release, target, chosen, progress, settings))
            if events is not None:
                tell(report, events)
    _give_found(report, out or _default_out(report, as_json), Form.json if as_json else Form.markdown)
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

    with _failures():
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
            callback=_room, help="Where to write the verdict (JSON; Markdown, HTML and JUnit XML beside it)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Compare two reports case by case: exit 0 pass, 1 fail, 2 cannot judge or no verdict."""
    with _failures():
        verdict = judge(read_report(baseline), read_report(candidate), load_rules(rules))
    _give_found(verdict, out, Form.json if as_json else Form.markdown)
    # In a terminal the beginning is far above by now.
    typer.echo(f"{TITLES[verdict.outcome]}: {headline(verdict)}. {sentence(verdict)}", err=True)
    raise typer.Exit(_CODES[verdict.outcome])


@commands.command()
def planted(
    only: Annotated[str | None, typer.Option(help="Which ones, by their names, separated by commas.")] = None,
    rules: Annotated[Path, typer.Option(help="Margins for each metric.")] = DEFAULT_RULES,
    limit_cases: Annotated[int | None, typer.Option(min=1, help="Ask only this many cases.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the table and each verdict to, in every form.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plant regressions in releases on the sample handbook, and tell what stops each."""
    from eval.planted import table
    from eval.planted.planting import plant_all
    from eval.planted.plants import chosen
    from eval.planted.types import Planted

    def told(one: Planted) -> None:
        typer.echo(table.line(one), err=True)
        if out is not None and one.stopped.verdict is not None:
            write(one.stopped.verdict, out / f"{one.plant.name}.json")

    with _failures():
        if out is not None:
            require_folder(out)
        plants, dataset = chosen(only), limited(load_dataset("handbook"), limit_cases)
        with _progress(as_json) as progress:
            found = asyncio.run(
                plant_all(
                    plants,
                    dataset,
                    load_rules(rules),
                    product=version("plumbline"),
                    progress=progress,
                    told=told,
                )
            )
    _give(table.body(found), table.markdown(found), out and out / "planted.json", as_json)
    raise typer.Exit(1 if table.missed(found) else 0)


@commands.command()
def report(
    file: Annotated[Path, typer.Argument(help="A report or a verdict.")],
    form: Annotated[Form, typer.Option("--format", help="JUnit XML is for verdicts.")] = Form.markdown,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show a report or a verdict."""
    with _failures():
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

    with _failures(), _needing("mlflow"):
        run = log(read_report(file), mlflow, experiment)
    typer.echo(json.dumps({"run": run}) if as_json else f"Logged: run {run} at {mlflow}")


@commands.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Where runs and verdicts were written.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the page's path as JSON.")] = False,
) -> None:
    """Write one page of all runs and verdicts in a folder, newest first, with their trends."""
    with _failures():
        path = write_index(folder)
    typer.echo(json.dumps({"index": str(path)}) if as_json else f"Written: {path}")


@commands.command("forget")
def forget_erased(
    folder: Annotated[Path, typer.Argument(help="Where runs were written, and the verdicts on them.")],
    receipts: Annotated[list[Path], typer.Argument(help="Receipts of erasures, or folders of them.")],
    as_json: AsJson = False,
) -> None:
    """Take the text of answers that were made from erased documents out of reports and verdicts."""
    kept = Receipts(str(receipts[0] if receipts[0].is_dir() else receipts[0].parent))
    with _failures():
        done = forget(folder, [kept.read(path) for path in found(receipts)])
    told = f"{done.answers} answers in {done.reports} reports and verdicts lost their text"
    typer.echo(json.dumps(asdict(done)) if as_json else told)


@commands.command()
def simulate(
    releases: Annotated[int, typer.Option(min=0, help="Releases for each target of the gate.")] = 200_000,
    canaries: Annotated[int, typer.Option(min=0, help="Canaries for each target.")] = 2_000,
    shadows: Annotated[int, typer.Option(min=0, help="Shadows for each target.")] = 5_000,
    rules: Annotated[Path, typer.Option(help="The rules that judge.")] = DEFAULT_RULES,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often gate, canary and shadow err where the truth is known; exit 1: a target is missed."""
    from eval.simulate import simulate as simulated

    with _failures(), _progress(as_json) as progress:
        found = simulated(
            load_rules(rules),
            releases_count=releases,
            canaries_count=canaries,
            shadows_count=shadows,
            progress=progress,
        )
    _give(found.json, found.markdown, out, as_json)
    raise typer.Exit(0 if found.met else 1)


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
    squad: Annotated[Path, typer.Option(help="A folder in SQuAD's form, with qa.jsonl: SQuAD 2.0, XQuAD.")],
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
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Score search on data sets, one step of it added after the other."""
    with _failures():
        datasets = {
            name: limited(load_dataset(str(folder)), most_cases) for name, folder in named(folders).items()
        }
        chosen, loaded = choose(steps), load_release(release)
        with _progress(as_json) as progress:

            async def scored() -> Table:
                async with encoder(loaded.body.index.embedder, cache) as found:
                    return await ablate_sets(datasets, loaded, Remembering(found, cache), chosen, progress)

            table = asyncio.run(scored())
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


@commands.command("parse")
def measure_parse(
    folder: Annotated[Path, typer.Argument(help="Documents, each with NAME.expected.md beside it.")],
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Score how faithfully documents are read: headings, tables and words against an expected text."""
    from eval.fidelity import measure_fidelity

    with _failures(), _progress(as_json) as progress:
        found = measure_fidelity(folder, progress)
    _give(found.json(), found.markdown(), out, as_json)


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


@commands.command("chunking")
def measure_chunks(
    folder: Annotated[Path, typer.Argument(help="Folder with corpora/ and questions.jsonl.")],
    release: Annotated[
        Path, typer.Option(help="Release file whose chunks and search it is.")
    ] = DEFAULT_RELEASE,
    sizes: Annotated[str, typer.Option(help="Tokens of other chunks to try, separated by commas.")] = "200",
    overlaps: Annotated[str, typer.Option(help="Tokens that such chunks share, too.")] = "",
    cache: Annotated[Path, typer.Option(help="Folder that keeps what was embedded.")] = Path(
        ".plumbline/ablation"
    ),
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure ways to cut long texts by how much of the exact places that answer a question is found."""
    from eval.measurements import measure_chunking

    with _failures(), _progress(as_json) as progress:
        found = measure_chunking(
            progress,
            folder=folder,
            release=release,
            sizes=_numbers(sizes),
            overlaps=_numbers(overlaps),
            cache=cache,
        )
    _give(found.json, found.markdown, out, as_json)


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


def _numbers(listed: str) -> list[int]:
    try:
        return [int(each) for each in listed.split(",") if each.strip()]
    except ValueError:
        raise EvalError(f"{listed!r} is no list of numbers.") from None


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


def _give_found(found: Report | Verdict, out: Path | None, form: Form) -> None:
    """Write every form when there is a place for them, and print the one that was asked for."""
    if out is not None:
        with _failures():
            written = write(found, out)
        typer.echo(f"Written: {', '.join(map(str, written))}", err=True)
    typer.echo(rendered(found, form), nl=False)


def _give(body: str, text: str, out: Path | None, as_json: bool) -> None:
    """Write both forms when there is a place for them, and print the one that was asked for."""
    if out is not None:
        with _failures():
            written = write_beside(out, {".json": body, ".md": text})
        typer.echo(f"Written: {', '.join(map(str, written))}", err=True)
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
def _needing(extra: str) -> Iterator[None]:
    """What is missing is of another extra than `eval`."""
    try:
        yield
    except ModuleNotFoundError as error:
        command = f"{shlex.quote(sys.executable)} -m pip install 'plumbline[{extra}]'"
        raise EvalError(f"{error}. Install it with: {command}") from None


@contextmanager
def _failures() -> Iterator[None]:
    """What went wrong, in one sentence, and the exit code for "cannot judge"."""
    try:
        yield
    except (EvalError, IngestionError, Misused, ReleaseInvalid, RetrievalError, SettingsError) as error:
        typer.echo(f"plumbline eval: {error}", err=True)
        raise typer.Exit(CANNOT) from None
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"plumbline eval: {os.fsdecode(error.filename)}: {error.strerror}.", err=True)
        raise typer.Exit(CANNOT) from None
    except ModuleNotFoundError as error:
        typer.echo(f"plumbline eval: {error}. Install it with: {INSTALL}", err=True)
        raise typer.Exit(CANNOT) from None
