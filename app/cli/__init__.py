"""The command line. Every command imports what it needs when it runs, so that `plumbline --help` is quick.

Commands of other folders are found by the entry-point group `plumbline.commands`; this folder imports none of
them. `release.report` is one that belongs to the group `release`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import typer

PLUGINS = "plumbline.commands"
_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}
_HELP_NAMES = ["-h", "--help"]
_OFFERED = {
    "eval": "Judge releases: run a data set, compare two runs, read a report.",
    "bench": "Measure the service against a floor, on parts of its own.",
    "controller": "Watch trials of releases and decide on them; `plumbline up` starts one.",
    "release.report": "Draft a post-mortem of a release's last trial that ended badly.",
}
"""What commands of other folders do, since asking themselves would import them."""


def main() -> None:
    """Run the command line of this process; ends with the exit code that decides."""
    from app.cli import console

    with console.printing():
        build()()


def build() -> typer.Typer:
    """All commands: 0 is done, 1 failed, 2 called in a wrong way, 3 cannot start."""
    from app.cli import (
        ask,
        collections,
        doctor,
        documents,
        erase,
        ingest,
        jobs,
        keys,
        migrate,
        queue,
        releases,
        search,
        serve,
        summarize,
        up,
    )

    commands = typer.Typer(
        help="Cited answers, search and summaries over your own documents.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": _HELP_NAMES},
    )
    for module in (up, ingest, search, ask, summarize, serve, doctor, migrate):
        module.register(commands)
    groups = {
        "documents": documents.commands,
        "collections": collections.commands,
        "erase": erase.commands,
        "jobs": jobs.commands,
        "queue": queue.commands,
        "release": releases.commands,
        "keys": keys.commands,
    }
    for name, group in groups.items():
        commands.add_typer(group, name=name)
    for offered in sorted(entry_points(group=PLUGINS), key=lambda found: found.name):
        group_name, _, name = offered.name.rpartition(".")
        _forward(groups[group_name] if group_name else commands, name, offered)
    return commands


def _forward(commands: typer.Typer, name: str, offered: EntryPoint) -> None:
    """A command that hands everything after its name on, and imports its owner only then."""
    if name in {known.name for known in commands.registered_commands}:
        return
    called = f"plumbline {offered.name.replace('.', ' ')}"

    @commands.command(
        name,
        help=_OFFERED.get(offered.name, f"See `{called} --help`."),
        add_help_option=False,
        context_settings=_EVERYTHING,
    )
    def run(context: typer.Context) -> None:
        from typer.main import get_command

        get_command(offered.load())(args=context.args, prog_name=called, help_option_names=_HELP_NAMES)
