"""`plumbline eval simulate | planted | ablate | search | parse | ...`: how good the gate and the parts of the
service are, where the truth is known.

Exit codes: 0 done, 1 a target was missed, 2 cannot measure.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from app.release import DEFAULT_RELEASE, load_release
from eval import console
from eval.ablation import STEPS, Remembering, choose, named
from eval.ablation import ablate as ablate_sets
from eval.cases import limited, load_dataset
from eval.encoders import encoder
from eval.forms import write
from eval.outputs import require_folder
from eval.rules import DEFAULT_RULES, load_rules
from eval.table import Table
from eval.types import EvalError

commands = typer.Typer()

CACHE = Path(".plumbline/ablation")
Cache = Annotated[Path, typer.Option(help="Folder that keeps what was embedded.")]


@commands.command()
def planted(
    only: Annotated[str | None, typer.Option(help="Which ones, by their names, separated by commas.")] = None,
    rules: Annotated[Path, typer.Option(help="Margins for each metric.")] = DEFAULT_RULES,
    limit_cases: Annotated[int | None, typer.Option(min=1, help="Ask only this many cases.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the table and each verdict to, in every form.")
    ] = None,
    as_json: console.AsJson = False,
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

    with console.failures():
        if out is not None:
            require_folder(out)
        plants, dataset = chosen(only), limited(load_dataset("handbook"), limit_cases)
        with console.progress(as_json) as progress:
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
    console.give(table.body(found), table.markdown(found), out and out / "planted.json", as_json)
    raise typer.Exit(1 if table.missed(found) else 0)


@commands.command()
def simulate(
    releases: Annotated[int, typer.Option(min=0, help="Releases for each target of the gate.")] = 200_000,
    canaries: Annotated[int, typer.Option(min=0, help="Canaries for each target.")] = 2_000,
    shadows: Annotated[int, typer.Option(min=0, help="Shadows for each target.")] = 5_000,
    rules: Annotated[Path, typer.Option(help="The rules that judge.")] = DEFAULT_RULES,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure how often gate, canary and shadow err where the truth is known; exit 1: a target is missed."""
    from eval.simulate import simulate as simulated

    with console.failures(), console.progress(as_json) as progress:
        found = simulated(
            load_rules(rules),
            releases_count=releases,
            canaries_count=canaries,
            shadows_count=shadows,
            progress=progress,
        )
    console.give(found.json, found.markdown, out, as_json)
    raise typer.Exit(0 if found.met else 1)


@commands.command("checker")
def check_checker(
    halueval: Annotated[Path | None, typer.Option(help="HaluEval's questions (JSON lines).")] = None,
    qags: Annotated[Path | None, typer.Option(help="QAGS's sentences (JSON lines).")] = None,
    scifact: Annotated[Path | None, typer.Option(help="SciFact's folder, with its claims.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Print weights fitted anew, too.")] = False,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure the check of answers against sentences that people labelled."""
    from eval.measurements import measure_checker

    with console.failures(), console.progress(as_json) as progress:
        found = measure_checker(progress, halueval=halueval, qags=qags, scifact=scifact, fit=fit)
    console.give(found.json, found.markdown, out, as_json)


@commands.command("unanswerable")
def check_unanswerable(
    squad: Annotated[Path, typer.Option(help="A folder in SQuAD's form, with qa.jsonl: SQuAD 2.0, XQuAD.")],
    questions: Annotated[int, typer.Option(min=2, help="Half of them without an answer.")] = 400,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure whether the built-in model declines what the documents do not hold."""
    from eval.measurements import measure_unanswerable

    with console.failures(), console.progress(as_json) as progress:
        found = measure_unanswerable(progress, squad=squad, questions=questions)
    console.give(found.json, found.markdown, out, as_json)


@commands.command("summaries")
def check_summaries(
    squality: Annotated[Path | None, typer.Option(help="SQuALITY's stories (JSON lines).")] = None,
    qmsum: Annotated[Path | None, typer.Option(help="QMSum's meetings (JSON lines).")] = None,
    texts: Annotated[int, typer.Option(min=1, help="So many texts of each, two summaries a text.")] = 5,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure the built-in model's summaries against those that people wrote."""
    from eval.measurements import measure_summaries

    with console.failures(), console.progress(as_json) as progress:
        found = measure_summaries(progress, squality=squality, qmsum=qmsum, texts=texts)
    console.give(found.json, found.markdown, out, as_json)


@commands.command()
def ablate(
    folders: Annotated[list[Path], typer.Argument(help="Data sets in BEIR's layout.")],
    release: Annotated[Path, typer.Option(help="Release file to take apart.")] = DEFAULT_RELEASE,
    steps: Annotated[str, typer.Option(help="Which rows, separated by commas.")] = ",".join(STEPS),
    cache: Cache = CACHE,
    most_cases: Annotated[
        int, typer.Option(min=1, help="Questions of each data set, spread evenly.")
    ] = 1_200,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Score search on data sets, one step of it added after the other."""
    with console.failures():
        datasets = {
            name: limited(load_dataset(str(folder)), most_cases) for name, folder in named(folders).items()
        }
        chosen, loaded = choose(steps), load_release(release)
        with console.progress(as_json) as progress:

            async def scored() -> Table:
                async with encoder(loaded.body.index.embedder, cache) as found:
                    return await ablate_sets(datasets, loaded, Remembering(found, cache), chosen, progress)

            table = asyncio.run(scored())
    console.give(table.json(), table.markdown(), out, as_json)


@commands.command("search")
def measure_search(
    folders: Annotated[list[Path], typer.Argument(help="Data sets in BEIR's layout.")],
    release: Annotated[Path | None, typer.Option(help="Release file to search with.")] = None,
    most_cases: Annotated[
        int | None, typer.Option(min=1, help="Questions of each data set, spread evenly; by default all.")
    ] = None,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Score what a private instance finds, and each arm of its search alone, over HTTP."""
    from eval.searches import measure

    with console.failures():
        datasets = {
            name: limited(load_dataset(str(folder)), most_cases) for name, folder in named(folders).items()
        }
        with console.progress(as_json) as progress:
            table = asyncio.run(measure(datasets, release, progress))
    console.give(table.json(), table.markdown(), out, as_json)


@commands.command("parse")
def measure_parse(
    folder: Annotated[Path, typer.Argument(help="Documents, each with NAME.expected.md beside it.")],
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Score how faithfully documents are read: headings, tables and words against an expected text."""
    from eval.fidelity import measure_fidelity

    with console.failures(), console.progress(as_json) as progress:
        found = measure_fidelity(folder, progress)
    console.give(found.json(), found.markdown(), out, as_json)


@commands.command("context")
def measure_context(
    folders: Annotated[list[str], typer.Argument(help="Data sets: folders, or the name of a shipped one.")],
    release: Annotated[Path, typer.Option(help="Release file whose context it is.")] = DEFAULT_RELEASE,
    most_cases: Annotated[int, typer.Option(min=1, help="Questions of each, spread evenly.")] = 1_000,
    copies: Annotated[int, typer.Option(min=1, help="Hold every document so many times.")] = 1,
    cache: Cache = CACHE,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure how much of the gold text is among the passages that a model is given."""
    from eval.measurements import measure_contexts

    with console.failures(), console.progress(as_json) as progress:
        found = measure_contexts(
            progress, sources=folders, release=release, most=most_cases, copies=copies, cache=cache
        )
    console.give(found.json, found.markdown, out, as_json)


@commands.command("chunking")
def measure_chunks(
    folder: Annotated[Path, typer.Argument(help="Folder with corpora/ and questions.jsonl.")],
    release: Annotated[
        Path, typer.Option(help="Release file whose chunks and search it is.")
    ] = DEFAULT_RELEASE,
    sizes: Annotated[str, typer.Option(help="Tokens of other chunks to try, separated by commas.")] = "200",
    overlaps: Annotated[str, typer.Option(help="Tokens that such chunks share, too.")] = "",
    cache: Cache = CACHE,
    out: console.Out = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure ways to cut long texts by how much of the exact places that answer a question is found."""
    from eval.measurements import measure_chunking

    with console.failures(), console.progress(as_json) as progress:
        found = measure_chunking(
            progress,
            folder=folder,
            release=release,
            sizes=_numbers(sizes),
            overlaps=_numbers(overlaps),
            cache=cache,
        )
    console.give(found.json, found.markdown, out, as_json)


def _numbers(listed: str) -> list[int]:
    try:
        return [int(each) for each in listed.split(",") if each.strip()]
    except ValueError:
        raise EvalError(f"{listed!r} is no list of numbers.") from None
