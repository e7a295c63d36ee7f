"""Release files with a fault: the default release, but for what is planted."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.release import DEFAULT_RELEASE, EXTRACTIVE
from eval.planted.types import InRelease
from eval.types import Case
from llm.prompts import load_template


def write_release(name: str, fault: InRelease, folder: Path, cases: Sequence[Case]) -> Path:
    """The file, with its prompt beside it; a served model stands before the built-in one."""
    parts: dict[str, Any] = tomllib.loads(DEFAULT_RELEASE.read_text(encoding="utf-8"))
    for part, keys in fault.keys.items():
        parts[part] = {**parts.get(part, {}), **keys}
    if fault.prompt is not None:
        prompt = fault.prompt(load_template("answer").text, cases)
        (folder / f"{name}.md").write_text(prompt, encoding="utf-8")
        parts["prompts"] = {"answer": f"./{name}.md"}
    models = [EXTRACTIVE] if fault.model is None else [fault.model, EXTRACTIVE]
    path = folder / f"{name}.toml"
    path.write_text(_toml(name, models, parts), encoding="utf-8")
    return path


def _toml(name: str, models: Sequence[str], parts: dict[str, Any]) -> str:
    lines = [f"name = {json.dumps(name)}"]
    for model in models:
        lines += ["[[models]]", f"name = {json.dumps(model)}"]
    for part, values in parts.items():
        if isinstance(values, dict):
            # JSON's strings, numbers and lists are TOML's too.
            lines += [f"[{part}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
