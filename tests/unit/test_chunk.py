from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.release import IndexPart
from ingestion.chunk import _LONG, SPECIAL_TOKENS, chunk, header
from ingestion.chunkers import CHUNKERS
from ingestion.errors import Quarantined, UnsupportedType
from ingestion.indexers import is_of_this_version
from ingestion.parse import PARSER_VERSION, parse
from ingestion.parse.builder import Builder
from ingestion.sandbox_wire import ANSWER, decode_answer, encode_parsed
from ingestion.tokens import _STRETCH, TokenSpans
from ingestion.types import BlockKind, Generation, Parsed, Piece
from retrieval.analyze import ANALYZERS
from retrieval.embedders.openvino import find_model
from retrieval.types import IndexSpec
from tests.passages import INDEX

WINDOW = 64
SPEC = replace(INDEX, chunk_tokens=40, header_template="{title}\n{heading}\n")


def pieces_of_words(text: str) -> Sequence[tuple[int, int]]:
    """Like WordPiece: words in parts of up to four characters, punctuation by itself, no white space."""
    return [m.span() for m in re.finditer(r"\w{1,4}|[^\w\s]", text)]


def with_spaces(text: str) -> Sequence[tuple[int, int]]:
    """Like byte-level pairs: a word's token holds the space before it, and white space has tokens too."""
    return [m.span() for m in re.finditer(r" ?\w{1,5}| ?[^\w\s]|\s", text)]


def whole_words(text: str) -> Sequence[tuple[int, int]]:
    """However long a word is, it is one token, as a word that the vocabulary does not know."""
    return [m.span() for m in re.finditer(r"\S+", text)]


def first_word_by_letters(text: str) -> Sequence[tuple[int, int]]:
    """What comes first is read in another way: the tokens of the parts are more than those of the whole."""
    first = re.match(r"\s*\S+", text)
    end = first.end() if first else 0
    rest = [(start + end, stop + end) for start, stop in pieces_of_words(text[end:])]
    return [m.span() for m in re.finditer(r"\S", text[:end])] + rest


TOKENIZERS = [pieces_of_words, with_spaces, whole_words]


def markdown(text: str) -> Parsed:
    return parse(text.encode(), "a.md", None)


def cut(parsed: Parsed, title: str = "", **changes: Any) -> list[Piece]:
    return chunk(parsed, replace(SPEC, **changes), title, pieces_of_words, WINDOW)


def sentences(count: int, word: str = "leave") -> str:
    return " ".join(f"Sentence {n} is about {word}." for n in range(count))


def test_a_short_document_is_one_passage() -> None:
    parsed = markdown("# Leave\n\nStaff get 25 days.\n")
    (piece,) = cut(parsed)
    assert piece.text == parsed.text == "Leave\n\nStaff get 25 days."
    assert (piece.heading, piece.page) == ("Leave", None)


def test_text_under_different_headings_is_kept_apart_under_its_path() -> None:
    pieces = cut(markdown("# A\n\nintro\n\n## B\n\none\n\ntwo\n\n## C\n\nthree\n\n# D\n\nfour\n"))
    assert [(p.heading, p.text) for p in pieces] == [
        ("A", "A\n\nintro"),
        ("A > B", "B\n\none\n\ntwo"),
        ("A > C", "C\n\nthree"),
        ("D", "D\n\nfour"),
    ]


def test_a_heading_without_text_goes_with_what_follows_or_with_the_end() -> None:
    pieces = cut(markdown("# A\n\n## B\n\ntext\n\n# Z\n"))
    assert [(p.heading, p.text) for p in pieces] == [("A > B", "A\n\nB\n\ntext\n\nZ")]
    assert [p.text for p in cut(markdown("# Only\n\n## Headings\n"))] == ["Only\n\nHeadings"]


def test_long_text_is_cut_at_sentence_ends_into_even_passages() -> None:
    parsed = markdown("# Long\n\n" + sentences(30))
    pieces = cut(parsed)
    sizes = [len(pieces_of_words(p.text)) for p in pieces]
    assert all(p.text.endswith(".") for p in pieces)
    assert max(sizes) <= SPEC.chunk_tokens
    assert min(sizes) >= SPEC.chunk_tokens / 2


def test_a_table_is_cut_between_rows_and_a_list_between_items() -> None:
    rows = "\n".join(f"| item {n} | {n} EUR |" for n in range(40))
    for piece in cut(markdown(f"| Plan | Price |\n|---|---|\n{rows}")):
        assert all(line.startswith("|") and line.endswith("|") for line in piece.text.splitlines())
    items = "\n".join(f"- step {n} of the whole procedure" for n in range(40))
    for piece in cut(markdown(items)):
        assert all(re.fullmatch(r"- step \d+ of the whole procedure", x) for x in piece.text.splitlines())


def tables(*tables: list[list[str]], before: str = "") -> Parsed:
    builder = Builder()
    builder.add("paragraph", before)
    for rows in tables:
        builder.table(rows)
    return builder.build(None)


def grid(columns: int, rows: int, cell: str = "c") -> list[list[str]]:
    return [[f"{cell}{row}.{column}" for column in range(columns)] for row in range(rows + 1)]


@pytest.mark.parametrize("overlap", [0, 10])
def test_each_part_of_a_table_begins_with_the_names_of_its_columns_and_holds_whole_rows(overlap: int) -> None:
    rows = [["Plan", "Price"], *([f"plan {n}", f"{n} EUR"] for n in range(40))]
    parsed = tables(rows, before="Prices of this year, as of March.")
    first, *later = cut(parsed, chunk_overlap=overlap)
    names = "| Plan | Price |\n| --- | --- |\n"
    assert first.text.startswith("Prices of this year, as of March.\n\n" + names + "| plan 0 | 0 EUR |")
    assert first.text == parsed.text[first.span.start : first.span.end]
    assert len(later) > 3
    for piece in later:
        assert piece.text == names + parsed.text[piece.span.start : piece.span.end]
        assert len(pieces_of_words(piece.text)) <= SPEC.chunk_tokens
    if not overlap:
        assert all(re.fullmatch(r"(\| plan \d+ \| \d+ EUR \|\n?)+", p.text[len(names) :]) for p in later)
    assert not uncovered(parsed, [first, *later], pieces_of_words)


def test_names_of_columns_that_would_fill_half_a_passage_are_said_once() -> None:
    parsed = tables(grid(12, 10))
    pieces = cut(parsed)
    assert len(pieces) > 5
    assert all(p.text == parsed.text[p.span.start : p.span.end] for p in pieces)
    assert not uncovered(parsed, pieces, pieces_of_words)


def test_the_names_of_columns_are_never_left_behind_by_the_first_row() -> None:
    for length in range(1, 40):
        parsed = tables([["Plan", "Price"], ["small", "1 EUR"], ["large", "9 EUR"]], before="word " * length)
        assert not any(piece.text.rstrip().endswith("| --- | --- |") for piece in cut(parsed))


def test_a_table_too_long_to_be_cut_at_once_loses_no_row_and_no_name() -> None:
    rows = [["Plan", "Price"], *([f"{'plan' * 25}{n}", f"{n}" * 20] for n in range(4_000))]
    parsed = tables(rows, before="Prices.")
    assert len(parsed.text) > _LONG > _STRETCH
    pieces = chunk(parsed, SPEC, "", whole_words, WINDOW)
    assert all("| Plan | Price |\n" in piece.text for piece in pieces)
    told = "\n".join(parsed.text[piece.span.start : piece.span.end] for piece in pieces)
    assert told.split() == parsed.text.split()


def test_text_after_a_table_shares_no_row_that_has_lost_its_columns() -> None:
    builder = Builder()
    builder.table([["Plan", "Price"], *([f"plan {n}", f"{n} EUR"] for n in range(12))])
    builder.add("paragraph", sentences(12))
    for piece in cut(builder.build(None), chunk_overlap=15):
        assert "| plan" not in piece.text or piece.text.startswith("| Plan | Price |")


def test_a_passage_rather_ends_where_a_paragraph_does_than_where_a_sentence_does() -> None:
    paragraphs = [sentences(count, "leave") for count in (3, 4, 3, 4)]
    pieces = cut(markdown("\n\n".join(paragraphs)))
    assert [p.text for p in pieces] == paragraphs


def test_a_sentence_longer_than_a_passage_is_cut_between_words() -> None:
    parsed = markdown(" ".join(f"word{n}" for n in range(300)))
    pieces = cut(parsed)
    assert " ".join(p.text for p in pieces) == parsed.text


def test_a_word_longer_than_any_passage_is_cut_all_the_same() -> None:
    for token_spans in TOKENIZERS:
        parsed = parse(b"x" * 50_000, "a.txt", None)
        pieces = chunk(parsed, SPEC, "", token_spans, WINDOW)
        assert "".join(p.text for p in pieces) == parsed.text
        assert max(len(p.text) for p in pieces) <= 64 * SPEC.chunk_tokens


def test_tokens_that_do_not_add_up_still_fit_the_window() -> None:
    parsed = markdown(" ".join(f"incomprehensibilities{n}" for n in range(300)))
    spec = replace(SPEC, chunk_tokens=WINDOW)
    pieces = chunk(parsed, spec, "", first_word_by_letters, WINDOW)
    assert len(pieces) > 1
    assert all(fits(p, "", spec, first_word_by_letters) for p in pieces)


def test_sentences_within_one_long_token_are_all_kept() -> None:
    parsed = parse(("文" * 30 + "。").encode() * 100, "a.txt", None)
    pieces = chunk(parsed, SPEC, "", whole_words, WINDOW)
    assert "".join(p.text for p in pieces) == parsed.text


def test_neighbours_overlap_by_whole_words_within_a_section_only() -> None:
    parsed = markdown("# A\n\n" + sentences(20) + "\n\n# B\n\n" + sentences(20, "sickness"))
    pieces = cut(parsed, chunk_overlap=10)
    for before, after in pairwise(pieces):
        shared = parsed.text[after.span.start : before.span.end]
        if before.heading != after.heading:
            assert shared == ""
        else:
            assert 1 <= len(pieces_of_words(shared)) <= 10
            assert parsed.text[after.span.start - 1].isspace()
        assert len(pieces_of_words(after.text)) <= SPEC.chunk_tokens


def test_a_passage_has_the_page_of_its_first_block() -> None:
    parsed = markdown("one\n\ntwo\n\n" + sentences(20))
    first, second, third = parsed.blocks
    paged = replace(parsed, blocks=(replace(first, page=1), replace(second, page=1), replace(third, page=2)))
    assert [p.page for p in cut(paged)][:2] == [1, 2]


def test_a_passage_that_begins_on_a_later_page_of_its_paragraph_has_that_page() -> None:
    builder = Builder()
    text = sentences(40)
    turns = [text.index("Sentence 20"), text.index("Sentence 30")]
    builder.add("paragraph", "Before.")
    builder.add("paragraph", text, page=3, turns=turns)
    parsed = decode_answer(encode_parsed(builder.build(None))[ANSWER.size :])
    assert isinstance(parsed, Parsed)
    begins = [int(re.findall(r"Sentence (\d+)", piece.text)[0]) for piece in cut(parsed)[1:]]
    assert [piece.page for piece in cut(parsed)[1:]] == [3 + (n >= 20) + (n >= 30) for n in begins]
    assert max(begins) >= 30


def test_only_a_long_document_is_cut_as_the_release_says_for_such() -> None:
    spec = replace(SPEC, long_tokens=56, long_overlap=12)

    def sizes(text: str) -> tuple[int, int]:
        pieces = chunk(markdown(text), spec, "", pieces_of_words, WINDOW)
        shared = sum(max(0, a.span.end - b.span.start) for a, b in pairwise(pieces))
        return max(len(pieces_of_words(piece.text)) for piece in pieces), shared

    most, shared = sizes(sentences(100))
    assert most <= SPEC.chunk_tokens
    assert shared == 0
    most, shared = sizes(sentences(400))
    assert SPEC.chunk_tokens < most <= 56
    assert shared > 0


def test_the_header_has_no_empty_lines_and_says_nothing_twice() -> None:
    assert header(SPEC, "Handbook", "Leave > Paid") == "Handbook\nLeave > Paid\n"
    assert header(SPEC, "Handbook", "") == "Handbook\n"
    assert header(SPEC, "", "") == ""
    assert header(SPEC, "Handbook", "Handbook") == "Handbook\n"
    assert header(SPEC, "Handbook", "Handbook > Leave") == "Handbook\nLeave\n"
    assert header(SPEC, "of {heading}\nand more", "x") == "of {heading} and more\nx\n"
    assert header(replace(SPEC, header_template=""), "T", "H") == ""
    assert len(header(SPEC, "word " * 100, "")) <= 101


def test_headings_longer_than_the_window_lose_their_outer_parts_not_the_text() -> None:
    long = "# " + " ".join(f"outer{n}" for n in range(40)) + "\n\n## Inner\n\ntext"
    pieces = cut(markdown(long), title="T")
    assert pieces[-1].heading == "Inner"
    assert all(fits(p, "T", SPEC, pieces_of_words) for p in pieces)


@pytest.mark.parametrize("count", [*TOKENIZERS, first_word_by_letters])
def test_the_prefix_of_documents_takes_its_part_of_the_window(count: TokenSpans) -> None:
    text = "\n\n".join(["# Pumps", *(f"Sentence number {n} tells of pumps." for n in range(40))])
    parsed = parse(text.encode(), "a.md", None)
    spec = replace(SPEC, chunk_tokens=WINDOW, document_prefix="Read this text now, and all of it: ")
    pieces = chunk(parsed, spec, "Title", count, WINDOW)
    read = [spec.document_prefix + header(spec, "Title", one.heading) + one.text for one in pieces]
    assert max(len(count(one)) for one in read) <= WINDOW - SPECIAL_TOKENS
    assert "".join(parsed.text.split()) == "".join("".join(one.text.split()) for one in pieces)
    assert not any("Read this" in one.text for one in pieces)


def test_a_window_without_room_for_text_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        chunk(markdown("text"), SPEC, "A title of several words", pieces_of_words, 12)


def test_text_without_tokens_has_no_passages() -> None:
    parsed = parse("\u2060 \u2060".encode(), "a.txt", None)
    assert chunk(parsed, SPEC, "", lambda text: [], WINDOW) == []


# What every chunker does


def test_a_release_names_a_chunker_or_an_analyzer_that_there_is() -> None:
    for field, known in (("chunker", CHUNKERS), ("analyzer", ANALYZERS)):
        assert set(get_args(IndexPart.model_fields[field].annotation)) == set(known)


def test_an_index_that_is_cut_read_or_analyzed_in_a_way_that_is_not_here_is_of_another_version() -> None:
    def known(**changes: str) -> bool:
        spec = replace(SPEC, **{"parser": PARSER_VERSION, **changes})  # type: ignore[arg-type]
        return is_of_this_version(Generation(spec.generation, spec, "serving", "e"))

    assert known()
    assert not known(chunker="sentences")
    assert not known(analyzer="klingon")
    assert not known(parser="0")


def fits(piece: Piece, title: str, spec: IndexSpec, token_spans: TokenSpans) -> bool:
    whole = header(spec, title, piece.heading) + piece.text
    return len(token_spans(whole)) + SPECIAL_TOKENS <= WINDOW


def uncovered(parsed: Parsed, pieces: list[Piece], token_spans: TokenSpans) -> list[str]:
    """Visible characters that belong to a token and to no passage."""
    covered = {at for p in pieces for at in range(p.span.start, p.span.end)}
    tokens = {at for start, end in token_spans(parsed.text) for at in range(start, end)}
    return [parsed.text[at] for at in sorted(tokens - covered) if not parsed.text[at].isspace()]


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["# A", "## B", "### C c", "", "", "- item", "| a | b |", "|---|---|", "```", "    code"]
        ),
        st.text(max_size=60),
        st.text(alphabet="ab .!?,\n", max_size=400),
        st.text(alphabet="日本語。文 ", max_size=120),
        st.integers(1, 900).map(lambda n: "w" * n),
    ),
    max_size=25,
).map("\n".join)


@pytest.mark.parametrize("chunker", CHUNKERS)
@given(
    text=LINES,
    filename=st.sampled_from(["a.md", "a.txt", "a.html"]),
    title=st.text(max_size=40),
    overlap=st.sampled_from([0, 0, 5, 20]),
    token_spans=st.sampled_from(TOKENIZERS),
)
def test_every_token_lands_in_a_passage_that_fits_and_is_an_exact_slice(
    chunker: str, text: str, filename: str, title: str, overlap: int, token_spans: TokenSpans
) -> None:
    try:
        parsed = parse(text.encode("utf-8", "replace"), filename, None)
    except (Quarantined, UnsupportedType):
        return
    spec = replace(SPEC, chunker=chunker, chunk_overlap=overlap)
    pieces = CHUNKERS[chunker](parsed, spec, title, token_spans, WINDOW)
    assert not uncovered(parsed, pieces, token_spans)
    for piece in pieces:
        assert piece.text == parsed.text[piece.span.start : piece.span.end] == piece.text.strip() != ""
        assert fits(piece, title, spec, token_spans)
    starts = [p.span.start for p in pieces]
    assert starts == sorted(starts)


_KINDS: list[BlockKind] = ["heading", "paragraph", "list", "code", "table", "table"]


@st.composite
def structured(draw: st.DrawFn) -> Parsed:
    """Documents as readers make them, with tables whose names alone may outgrow a passage."""
    builder = Builder()
    cells = st.text(alphabet="ab c|日.", max_size=draw(st.sampled_from([3, 12, 90])))
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(_KINDS))
        if kind == "table":
            width = draw(st.integers(1, 12))
            rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=12))
            builder.table(rows, page=draw(st.integers(1, 3)))
        else:
            builder.add(kind, draw(st.text(alphabet="ab .\n日", max_size=300)), level=draw(st.integers(1, 3)))
    return builder.build(None)


@pytest.mark.parametrize("chunker", CHUNKERS)
@given(
    parsed=structured(),
    title=st.text(alphabet="ab ", max_size=40),
    overlap=st.sampled_from([0, 5, 20]),
    token_spans=st.sampled_from([*TOKENIZERS, first_word_by_letters]),
)
def test_nothing_is_cut_off_by_the_window_whatever_is_said_again_before_it(
    chunker: str, parsed: Parsed, title: str, overlap: int, token_spans: TokenSpans
) -> None:
    spec = replace(SPEC, chunker=chunker, chunk_overlap=overlap)
    pieces = CHUNKERS[chunker](parsed, spec, title, token_spans, WINDOW)
    assert not uncovered(parsed, pieces, token_spans)
    headers = {parsed.text[b.header.start : b.header.end] for b in parsed.blocks if b.header}
    for piece in pieces:
        own = parsed.text[piece.span.start : piece.span.end]
        assert own.strip()
        assert piece.text.removesuffix(own) in {"", *headers}
        assert fits(piece, title, spec, token_spans)
    assert [p.span.start for p in pieces] == sorted(p.span.start for p in pieces)


@pytest.mark.parametrize("chunker", CHUNKERS)
def test_with_the_real_tokenizer_every_passage_fits_its_window(chunker: str) -> None:
    from tokenizers import Tokenizer

    model = find_model("all-MiniLM-L6-v2", None)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def token_spans(text: str) -> Sequence[tuple[int, int]]:
        offsets: list[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets

    spec = replace(SPEC, chunker=chunker, chunk_tokens=200, chunk_overlap=20)
    hard = "Ünïcödé ﬁne “quotes” — naïve 日本語の文章です。 x²+y³≥z₁ http://a.b/c?d=e&f=%20 " * 60
    parsed = markdown(
        f"# {'Long heading of many words ' * 8}\n\n{hard}\n\n## Code\n\n```\n{'a_b(c)[d];' * 400}\n```\n"
    )
    pieces = CHUNKERS[chunker](parsed, spec, "A title, not too short", token_spans, 256)
    for piece in pieces:
        whole = header(spec, "A title, not too short", piece.heading) + piece.text
        assert len(tokenizer.encode(whole).ids) <= 256
    assert not uncovered(parsed, pieces, token_spans)
