"""`plumbline bench files` over a folder of one's own: what it hands in, reads, reports and decides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def test_files_are_held_against_their_labels_by_a_service_that_is_searched_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    entries: list[dict[str, Any]] = []
    for name, content, expect in (
        ("note.txt", b"The gateway was down on Monday.", "text"),
        ("broken.pdf", b"%PDF-1.4 nothing", "reject"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(20), "reject"),
        ("nothing.txt", b"", "empty"),
        ("mislabelled.md", b"# Text\n\nAnd more of it.", "ocr"),
    ):
        (folder / name).write_bytes(content)
        entries.append({"file": name, "expect": expect, "oracle": {"words_agreed": ["gateway"]}})
    (folder / "MANIFEST.json").write_text(json.dumps(entries))
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "app.cli", "bench", "files", str(folder), "--seconds", "1", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PLUMBLINE_", "OTEL_"))}
    done = subprocess.run(
        [*command, "--report", str(report)], capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads(report.read_text())
    assert not told["passed"]
    rows = {row["file"]: row for row in told["files"]}
    assert {name: (row["state"], row["reason"], row["fault"]) for name, row in rows.items()} == {
        "note.txt": ("succeeded", None, None),
        "broken.pdf": ("quarantined", "damaged", None),
        "picture.png": ("refused", "unsupported_type", None),
        "nothing.txt": ("refused", "empty_document", None),
        "mislabelled.md": ("succeeded", None, "read as if it had text"),
    }
    assert rows["note.txt"]["words"] == 1.0
    assert all(row["peak_mib"] > 0 for row in told["files"])
    assert told["searches"]["during"]["requests"] > 0
    assert told["searches"]["during"]["failed"] == told["searches"]["idle"]["failed"] == 0
