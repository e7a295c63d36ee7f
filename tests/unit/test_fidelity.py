from __future__ import annotations

from pathlib import Path

import pytest

from eval.fidelity import compare, measure_fidelity, neighbours, shape_of_markdown
from eval.types import EvalError

PAGE = "# One\n\nSome *text* here.\n\n## Two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"


def scores(found: str, expected: str = PAGE) -> dict[str, float | None]:
    return compare(shape_of_markdown(found), shape_of_markdown(expected))


def test_the_same_document_scores_one_in_everything() -> None:
    assert set(scores(PAGE).values()) == {1.0}


def test_marks_addresses_and_spaces_make_no_difference() -> None:
    other = "One\n===\n\nSome [text](http://x.test) `here`.\n\n## **Two**\n\n|a|b|\n|-|-|\n|1|2|\n| 3 | *4* |"
    assert set(scores(other).values()) == {1.0}


def test_a_heading_of_another_level_counts_by_its_text_alone() -> None:
    found = scores(PAGE.replace("## Two", "### Two"))
    assert (found["headings"], found["heading_texts"]) == (0.5, 1.0)


def test_cells_in_other_rows_are_the_cells_but_not_the_grid() -> None:
    found = scores(PAGE.replace("| 1 | 2 |\n| 3 | 4 |", "| 1 | 4 |\n| 3 | 2 |"))
    assert found["cells"] == 1.0
    assert found["grid"] is not None
    assert found["grid"] < 0.5


def test_a_missing_and_an_invented_table_both_cost() -> None:
    without = PAGE.split("| a")[0]
    assert scores(without)["cells"] == 0.0
    assert scores(PAGE, without)["cells"] == 0.0
    assert scores(without, without)["cells"] is None


def test_neighbours_look_over_empty_cells() -> None:
    assert dict(neighbours([["a", "", "b"], ["c", "d", ""]])) == {
        ("a", "b", "right"): 1,
        ("c", "d", "right"): 1,
        ("a", "c", "below"): 1,
    }


def test_a_folder_is_judged_by_type_through_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(PAGE)
    (tmp_path / "a.md.expected.md").write_text(PAGE)
    (tmp_path / "b.html").write_text("<h1>One</h1><p>Some text</p>")
    (tmp_path / "b.html.expected.md").write_text("# One\n\nSome other text")
    (tmp_path / "c.pdf").write_text("none")
    (tmp_path / "c.pdf.expected.md").write_text("# One")
    table = measure_fidelity(tmp_path, lambda step, done, total: None)
    found = table.by_type()
    assert found["md"] == {"documents": 1} | dict.fromkeys(
        ("headings", "heading_texts", "cells", "grid", "words"), 1.0
    )
    assert found["html"]["headings"] == 1.0
    assert found["html"]["words"] == pytest.approx(6 / 7)
    assert found["pdf"]["headings"] == 0.0
    assert "c.pdf" in table.markdown()


def test_a_folder_without_expected_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="expected"):
        measure_fidelity(tmp_path, lambda step, done, total: None)
