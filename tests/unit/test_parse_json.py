from __future__ import annotations

import json

import pytest

from ingestion.errors import Quarantined, UnsupportedType
from tests.packages import outline, read, texts


def written(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def test_an_object_is_read_as_lines_its_larger_parts_as_sections() -> None:
    value = {
        "title": "Grüße",
        "price": 1.5,
        "open": True,
        "owner": {"name": "Ann", "tags": ["a", "b"]},
        "log": {f"step {n}": n for n in range(20)},
        "none": None,
    }
    parsed = read(written(value), "a.json")
    assert parsed.title == "Grüße"
    assert outline(parsed)[:2] == [
        (
            "paragraph",
            0,
            "title: Grüße\nprice: 1.5\nopen: true\nowner.name: Ann\nowner.tags: a, b\nnone: null",
        ),
        ("heading", 1, "log"),
    ]
    assert texts(parsed)[2].startswith("step 0: 0\nstep 1: 1\n")


def test_an_array_of_like_objects_is_a_table() -> None:
    value = {"staff": [{"name": "Ann", "age": 31}, {"name": "Bob", "city": ["Bern", "Oslo"]}]}
    parsed = read(written(value), "a.json")
    assert outline(parsed) == [
        ("heading", 1, "staff"),
        ("table", 0, "| name | age | city |\n| --- | --- | --- |\n| Ann | 31 |  |\n| Bob |  | Bern, Oslo |"),
    ]


def test_unlike_objects_and_long_texts_are_no_table() -> None:
    long = "word " * 100
    parsed = read(written([{"a": long}, {"a": "short"}]), "a.json")
    assert texts(parsed) == [f"a: {long}".strip(), "a: short"]
    assert texts(read(written([{"a": 1}, {"b": {"c": 2}}, 3]), "a.json")) == ["a: 1", "b.c: 2", "3"]


def test_a_list_of_values_is_a_list() -> None:
    assert outline(read(written(["x", 2, False]), "a.json")) == [("list", 0, "- x\n- 2\n- false")]


@pytest.mark.parametrize("between", ["\n", "\n\n", " "])
def test_each_record_of_jsonl_is_a_block(between: str) -> None:
    source = between.join(json.dumps({"id": n, "text": f"line {n}"}) for n in range(3))
    for name in ("a.jsonl", "a.json"):
        parsed = read(source.encode(), name)
        assert texts(parsed) == [f"id: {n}\ntext: line {n}" for n in range(3)]


def test_numbers_that_the_standard_does_not_know_and_any_encoding_are_read() -> None:
    assert read('{"x": NaN, "y": 123456789012345678901234567890}'.encode("utf-16"), "a.json").text == (
        "x: nan\ny: 123456789012345678901234567890"
    )


def test_damage_is_named_with_its_place() -> None:
    for source in (b'{"a": 1,\n "b": }', b'{"a": 1}\n{"b": }\n'):
        with pytest.raises(Quarantined) as caught:
            read(source, "a.json")
        assert (caught.value.reason, (caught.value.part or "").split(",")[0]) == ("damaged", "line 2")


def test_what_is_nested_without_end_is_refused() -> None:
    with pytest.raises(Quarantined) as caught:
        read(b"[" * 100_000 + b"]" * 100_000, "a.json")
    assert caught.value.reason == "too_large"
    value: object = "deep"
    for _ in range(200):
        value = {"k": [value]}
    assert read(written(value), "a.json").text.endswith(": deep")


def test_a_page_that_is_called_json_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="says it is JSON, but its bytes look like an HTML page"):
        read(b"<html><body>404</body></html>", "a.json")
