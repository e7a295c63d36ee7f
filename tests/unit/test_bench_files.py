"""How files are held against their labels by `plumbline bench files`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.bench.files import passed
from eval.bench.labels import BYTES, SECONDS, Expect, Labelled, Made, fault, labelled, share_of_words
from eval.types import DatasetInvalid

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def end(
    expect: Expect,
    reason: str | None = None,
    text: str | None = None,
    seconds: float = 1.0,
    peak: int = 1,
) -> str | None:
    label = Labelled(Path("a"), expect, WORDS if expect == "text" else ())
    return fault(label, Made(text=text, reason=reason, seconds=seconds, peak=peak))


def test_a_file_with_text_yields_nearly_all_words_that_others_agree_on_however_long_it_takes() -> None:
    assert end("text", text=" ".join(WORDS[:9]).upper(), seconds=100.0) is None
    assert end("text", text=" ".join(WORDS[:8])) == "80% of the agreed words"
    assert end("text", reason="damaged") == "refused as damaged"
    assert share_of_words((), "anything") == 1.0
    assert share_of_words((), " ") == share_of_words((), None) == 0.0


@pytest.mark.parametrize(
    ("expect", "reason"),
    [
        ("password", "encrypted"),
        ("ocr", "needs_ocr"),
        ("empty", "empty"),
        ("empty", "empty_document"),
        ("reject", "damaged"),
        ("reject", "unsupported_type"),
        ("bounded", "timeout"),
        ("bounded", "memory"),
    ],
)
def test_other_files_end_in_bounds_for_the_reason_of_their_label_and_no_other(
    expect: Expect, reason: str
) -> None:
    assert end(expect, reason) is None
    assert end(expect, "internal") == "refused as internal"
    assert end(expect, reason, seconds=SECONDS + 1) == "took 21.0 s"
    assert end(expect, reason, peak=BYTES + 2**20) == "took 1025 MiB"
    assert end(expect, text="text") == (None if expect == "bounded" else "read as if it had text")


def test_a_manifest_that_is_wrong_or_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    def listed(*entries: dict[str, Any]) -> list[Labelled]:
        (tmp_path / "MANIFEST.json").write_text(json.dumps(entries))
        return labelled(tmp_path)

    (tmp_path / "a.txt").write_text("a")
    entry = {"file": "a.txt", "expect": "text", "oracle": {"words_agreed": ["a"]}}
    assert listed(entry) == [Labelled(tmp_path / "a.txt", "text", ("a",))]
    for wrong in ({**entry, "expect": "good"}, {**entry, "file": "b.txt"}, {"expect": "text"}):
        with pytest.raises(DatasetInvalid):
            listed(wrong)
    with pytest.raises(DatasetInvalid):
        listed()


def test_it_passes_only_if_texts_others_and_searches_are_all_as_wanted() -> None:
    good: dict[str, Any] = {
        "text": {"share": 0.98, "wanted": 0.97},
        "others": {"share": None, "wanted": 1.0},
        "searches": {"p99_ratio": 2.9, "wanted": 3.0, "during": {"failed": 0}},
    }
    assert passed(good)
    assert not passed({**good, "text": {"share": 0.96, "wanted": 0.97}})
    assert not passed({**good, "others": {"share": 0.99, "wanted": 1.0}})
    searches = good["searches"]
    assert not passed({**good, "searches": {**searches, "p99_ratio": 3.1}})
    assert not passed({**good, "searches": {**searches, "during": {"failed": 1}}})
