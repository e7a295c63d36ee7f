from __future__ import annotations

import pytest

from ingestion.parse import parse
from ingestion.rules import NONE, Breach, Rules, rules_json, rules_of
from ingestion.types import Block, Parsed
from ingestion.validation import breaches, damage, paragraphs, spoken
from retrieval.types import Span

ENGLISH = "The gateway was down for an hour, and it is not known to us why that had been so. " * 3
GERMAN = "Der Dienst war eine Stunde lang nicht zu erreichen, und wir wissen nicht, woran das lag. " * 3


def read(text: str) -> Parsed:
    return parse(text.encode(), "a.md", None)


def pages(*sizes: int) -> Parsed:
    """A document whose pages hold so many characters; a page of none has no block."""
    blocks, at = [], 0
    for page, size in enumerate(sizes, 1):
        if size:
            blocks.append(Block(kind="paragraph", span=Span(at, at + size), page=page))
            at += size
    return Parsed(title=None, text="x" * at, blocks=tuple(blocks))


def broken(rules: Rules, parsed: Parsed, **metadata: str) -> list[str]:
    return [one.rule for one in breaches(rules, parsed, metadata)]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "english"),
        (GERMAN, "german"),
        (
            "La casa es de los padres que no han venido en el tren de las siete, pero sí. " * 2,
            "spanish",
        ),
        ("На прошлой неделе шлюз не работал целый час, и никто не знает почему это было так. " * 3, "other"),
        ("先週ゲートウェイが一時間停止しましたが、原因はまだ分かっていません。" * 5, "other"),
        ("lorem ipsum dolor sit amet consectetur adipiscing elit sed eiusmod tempor " * 4, "other"),
        ("Too short to say.", None),
    ],
)
def test_the_language_of_a_text_is_told_or_not_guessed(text: str, language: str | None) -> None:
    assert spoken(text) == language


def test_a_text_in_another_language_breaks_the_rule_and_is_named() -> None:
    rules = Rules(languages=("english", "french"))
    assert broken(rules, read(ENGLISH)) == []
    [breach] = breaches(rules, read(GERMAN), {})
    assert breach == Breach("languages", "The text is in German, not in English or French.")


def test_pages_that_hold_little_break_the_rule_pages_without_any_text_included() -> None:
    rules = Rules(min_characters_per_page=100)
    assert broken(rules, pages(100, 100)) == []
    assert broken(rules, pages(150, 0, 140)) == ["min_characters_per_page"]
    assert broken(rules, read("No pages here.")) == []


def test_the_length_of_a_text_is_bounded_on_both_sides() -> None:
    rules = Rules(min_characters=10, max_characters=20)
    assert [broken(rules, read("x" * size)) for size in (9, 10, 20, 21)] == [
        ["min_characters"],
        [],
        [],
        ["max_characters"],
    ]


def test_damaged_characters_are_counted_and_sound_ones_of_any_script_are_not() -> None:
    twice = "Für Köln: “straße” – £5 à la carte, naïve café…".encode().decode("cp1252", "replace")
    assert damage(twice) > 0.2
    assert damage("caf\ufffd") == 0.25
    assert damage("\ue001\ue002ab") == 0.5
    sound = "Für Köln: “straße” – £5 à la carte, São Tomé, Âge, ÂÃ â la mode. На севере. 東京 😀 100 €, 5 %."
    assert damage(sound) == 0
    assert broken(Rules(max_damage_share=0.1), read(twice)) == ["max_damage_share"]
    half = Parsed(title=None, text="\ue001\ue002ab", blocks=())
    assert broken(Rules(max_damage_share=0.5), half) == []


def test_metadata_that_is_missing_or_empty_breaks_the_rule() -> None:
    rules = Rules(required_metadata=("owner", "year"))
    [breach] = breaches(rules, read("text"), {"owner": "", "lang": "en"})
    assert breach.message == "The metadata lacks owner, year."
    assert broken(rules, read("text"), owner="ann", year="2024") == []


def test_what_a_reader_left_out_is_told_without_any_rule_unless_nobody_wants_to_know() -> None:
    parsed = Parsed(title=None, text="x", blocks=(), notes=("Page 3 needs OCR.",))
    assert breaches(NONE, parsed, {}) == [Breach("notes", "Page 3 needs OCR.")]
    assert breaches(Rules(notes=False), parsed, {}) == []


def test_the_same_paragraph_has_the_same_hash_whatever_its_case_and_spaces() -> None:
    heading = "# A title that has as many letters as a paragraph has"
    one = read(f"{heading}\n\nThe quick brown fox jumps over the lazy dog,\nevery day.\n\nShort.")
    other = read("The  QUICK brown fox jumps over the lazy dog, every day.\n\n" + ENGLISH)
    assert len(paragraphs(one)) == 1
    assert set(paragraphs(one)) < set(paragraphs(other))


def test_a_document_of_many_paragraphs_is_compared_by_the_same_ones_each_time() -> None:
    many = read("\n\n".join(f"Paragraph number {n} of a document that has very many." for n in range(5_000)))
    assert paragraphs(many) == sorted(paragraphs(many))
    assert len(paragraphs(many)) == 2_000


def test_rules_come_back_from_the_ledger_as_they_were() -> None:
    rules = Rules(
        languages=("english",), max_duplicate_share=0.0, required_metadata=("owner",), notes=False,
        refuse=frozenset({"languages", "required_metadata"}),
    )  # fmt: skip
    assert rules_of(rules_json(rules)) == rules
    assert rules_json(NONE) == {}
