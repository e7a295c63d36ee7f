"""What the READMEs name is there: paths, links, commands with their options, targets, modules, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from app.cli import PLUGINS, build
from app.settings import load_settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("app", "deploy", "eval", "ingestion", "llm", "retrieval", "tests")
READMES = [ROOT / "README.md", *(ROOT / folder / "README.md" for folder in FOLDERS)]
SPAN = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"[\w./-]+\.(?:py|toml|yaml|md|js|css|sh|txt)")
MADE = frozenset({"candidate.toml", "rebuilt.toml", "base.json", "first.json", "verdict.json", "ledger.dump"})
"""Files of whoever runs the examples."""


FILES = frozenset(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*"),
        *(p for top in (*FOLDERS, ".github") for p in (ROOT / top).rglob("*")),
    )
)


def _told(readme: Path) -> Iterator[str]:
    """Everything in code style: spans, and the lines of blocks without their comments."""
    text = readme.read_text()
    for block in BLOCK.findall(text):
        yield from (line.partition(" #")[0].strip() for line in block.splitlines())
    yield from SPAN.findall(BLOCK.sub("", text))


def _is_there(name: str, folder: str) -> bool:
    """From the project's folder, from the README's, or anywhere below that one."""
    name = name.rstrip("/")
    return name in FILES or any(
        PurePosixPath(path).match(name) for path in FILES if path.startswith(f"{folder}/" if folder else "")
    )


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_file_that_a_readme_names_is_there(readme: Path) -> None:
    folder = readme.parent.relative_to(ROOT).as_posix().removeprefix(".")
    named = {
        name for told in _told(readme) for name in re.split(r"[\s,:(){}|]+", told) if FILE.fullmatch(name)
    }
    named = {name for name in named - MADE if "NAME" not in name and not name.startswith("/")}
    assert {name for name in named if not _is_there(name, folder)} == set()


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_link_leads_to_a_file_and_a_heading(readme: Path) -> None:
    for link in LINK.findall(readme.read_text()):
        path, _, anchor = link.partition("#")
        target = (readme.parent / path).resolve() if path else readme
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert not anchor or anchor in {_anchor(heading) for heading in headings}, link


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def _commands() -> Mapping[str, frozenset[str]]:
    """The options of every command, by its words; groups too."""
    plugins = {one.name: one for one in entry_points(group=PLUGINS)}
    found = {}
    top: tuple[str, ...] = ()
    waiting = [(top, get_command(build()))]
    while waiting:
        path, command = waiting.pop()
        if plugin := plugins.get(".".join(path)):
            command = get_command(plugin.load())
        found[" ".join(path)] = frozenset(
            option for each in command.params for option in (*each.opts, *each.secondary_opts)
        )
        if isinstance(command, TyperGroup):
            waiting += [((*path, name), each) for name, each in command.commands.items()]
    return found


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_command_and_option_that_a_readme_names_is_there(readme: Path) -> None:
    commands = _commands()
    for line in (line for told in _told(readme) for line in re.split(r"&&|[|;]", told)):
        called = re.match(r"(?:\S+=\S* )*(?:\.venv/bin/)?plumbline (.+)", line.strip())
        if called is None:
            continue
        words = called[1].replace("...", "").split()
        names = [" ".join(words[:size]) for size in range(len(words) + 1)]
        name = next(name for name in reversed(names) if name in commands)
        follows = words[len(name.split())] if len(name.split()) < len(words) else "--"
        is_group = any(other.startswith(f"{name} ") for other in commands)
        assert name, line
        assert not is_group or not re.fullmatch(r"[a-z][a-z-]*", follows), f"{line}: no {name} {follows}"
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= commands[name], line


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_target_module_test_and_setting_that_a_readme_names_is_there(readme: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    settings = {setting.variable for setting in load_settings({}).listed()}
    for told in _told(readme):
        if target := re.match(r"make (\w+)", told):
            assert target[1] in targets
        if module := re.search(r"python -m (tests[a-z_.]*)(?=\s|$)", told):
            assert _is_there(module[1].replace(".", "/") + ".py", "") or _is_there(
                module[1].replace(".", "/"), ""
            )
        if told.startswith("pytest "):
            assert all(_is_there(word, "") for word in told.split() if word.startswith("tests/")), told
        for variable in re.findall(r"\bPLUMBLINE_[A-Z_]+\b", told):
            assert variable.removesuffix("_FILE") in settings, variable
