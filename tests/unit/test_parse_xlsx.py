from __future__ import annotations

import pytest

from ingestion.errors import Quarantined
from ingestion.parse.xlsx_numbers import Formats
from tests.packages import outline, package, read, relations, texts

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
REL = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'


def cell(place: str, value: str | float) -> str:
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
    return f'<c r="{place}"><v>{value}</v></c>'


def sheet(rows: dict[int, dict[str, str | float]], more: str = "") -> str:
    inner = "".join(
        f'<row r="{n}">{"".join(cell(f"{column}{n}", v) for column, v in cells.items())}</row>'
        for n, cells in rows.items()
    )
    return f"<worksheet {MAIN}><sheetData>{inner}</sheetData>{more}</worksheet>"


def book(*sheets: str, **parts: str) -> bytes:
    listed = "".join(f'<sheet name="Sheet {n}" r:id="s{n}"/>' for n in range(1, len(sheets) + 1))
    links = {f"s{n}": ("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)}
    links |= {"str": ("sharedStrings", "sharedStrings.xml"), "sty": ("styles", "styles.xml")}
    return package(
        {
            "_rels/.rels": relations({"r1": ("officeDocument", "xl/workbook.xml")}),
            "xl/workbook.xml": f"<workbook {MAIN} {REL}><sheets>{listed}</sheets></workbook>",
            "xl/_rels/workbook.xml.rels": relations(links),
            **{f"xl/worksheets/sheet{n}.xml": body for n, body in enumerate(sheets, 1)},
            **parts,
        }
    )


def test_each_sheet_is_a_section_with_its_number_and_its_used_range_a_table() -> None:
    first = sheet({3: {"B": "Name", "C": "Count"}, 4: {"B": "Pen", "C": 3}, 5: {"C": 4.5}})
    parsed = read(book(first, sheet({1: {"A": "alone"}})), "a.xlsx")
    assert outline(parsed) == [
        ("heading", 1, "Sheet 1"),
        ("table", 0, "| Name | Count |\n| --- | --- |\n| Pen | 3 |\n|  | 4.5 |"),
        ("heading", 1, "Sheet 2"),
        ("paragraph", 0, "alone"),
    ]
    assert [b.page for b in parsed.blocks] == [1, 1, 2, 2]


def test_tables_are_parted_where_empty_rows_and_columns_make_it_clear() -> None:
    rows: dict[int, dict[str, str | float]] = {
        1: {"A": "Prices 2026"},
        3: {"A": "Plan", "B": "Price", "E": "City", "F": "Staff"},
        4: {"A": "Basic", "B": 10, "E": "Bern", "F": 7},
        5: {"A": "Pro", "B": 20},
        8: {"A": "Code", "B": "Meaning"},
        9: {"A": "x", "B": "y"},
    }
    assert texts(read(book(sheet(rows)), "a.xlsx"))[1:] == [
        "Prices 2026",
        "| Plan | Price |\n| --- | --- |\n| Basic | 10 |\n| Pro | 20 |",
        "| City | Staff |\n| --- | --- |\n| Bern | 7 |",
        "| Code | Meaning |\n| --- | --- |\n| x | y |",
    ]


def test_one_empty_row_within_a_table_does_not_part_it() -> None:
    rows: dict[int, dict[str, str | float]] = {
        1: {"A": "Plan", "B": "Price"},
        2: {"A": "Basic", "B": 10},
        4: {"A": "Pro", "B": 20},
    }
    assert len(texts(read(book(sheet(rows)), "a.xlsx"))) == 2


def test_merged_cells_say_their_text_in_each_row() -> None:
    rows: dict[int, dict[str, str | float]] = {
        1: {"A": "Region", "B": "City"},
        2: {"A": "North", "B": "Oslo"},
        3: {"B": "Umeå"},
    }
    merged = '<mergeCells><mergeCell ref="A2:A3"/></mergeCells>'
    assert texts(read(book(sheet(rows, merged)), "a.xlsx"))[1].endswith("| North | Oslo |\n| North | Umeå |")


def test_strings_formulas_truths_and_errors_are_read_as_shown() -> None:
    body = (
        f'<worksheet {MAIN}><sheetData><row r="1"><c r="A1" t="s"><v>0</v></c>'
        '<c r="B1"><f>1+1</f><v>2</v></c>'
        '<c r="C1" t="b"><v>1</v></c><c r="D1" t="e"><v>#N/A</v></c><c r="E1" t="str"><f>x</f><v>so</v></c>'
        '<c t="n"><v>7</v></c><c r="H1" s="1"><v>0.5</v></c></row></sheetData></worksheet>'
    )
    strings = f"<sst {MAIN}><si><r><t>rich </t></r><r><t>text</t></r><rPh><t>reading</t></rPh></si></sst>"
    styles = f'<styleSheet {MAIN}><cellXfs><xf numFmtId="0"/><xf numFmtId="9"/></cellXfs></styleSheet>'
    content = book(body, **{"xl/sharedStrings.xml": strings, "xl/styles.xml": styles})
    assert (
        texts(read(content, "a.xlsx"))[1].split("\n")[0] == "| rich text | 2 | TRUE | #N/A | so | 7 | 50% |"
    )


@pytest.mark.parametrize(
    ("raw", "code", "shown"),
    [
        ("0.256", "0.0%", "25.6%"),
        ("1234567.891", "#,##0.00", "1,234,567.89"),
        ("-1234.5", "#,##0.00_);[Red](#,##0.00)", "(1,234.50)"),
        ("1234.5", "[$€-407] #,##0.00", "€ 1,234.50"),
        ("12", "000000", "000012"),
        ("1500000", '0.0,,"M"', "1.5M"),
        ("7", "0.##", "7"),
        ("43831", "yyyy-mm-dd", "2020-01-01"),
        ("43831.75", "h:mm AM/PM", "6:00 PM"),
        ("45000", "[$-409]mmmm d, yyyy;@", "March 15, 2023"),
        ("1.5", "[h]:mm:ss", "36:00:00"),
        ("0.1", "General", "0.1"),
        ("0.30000000000000004", "General", "0.3"),
        ("0.5", "# ?/?", "0.5"),
        ("1E+400", "0.00", "1E+400"),
        ("4000000000", "yyyy", "4000000000"),
        ("x", "0.00", "x"),
    ],
)
def test_a_number_is_read_as_its_format_shows_it(raw: str, code: str, shown: str) -> None:
    assert Formats([code], from_1904=False).show(raw, 0) == shown


def test_a_sheet_with_cells_at_its_far_corners_is_read_without_the_emptiness_between() -> None:
    rows: dict[int, dict[str, str | float]] = {1: {"A": "near"}, 1_048_576: {"XFD": "far"}}
    assert texts(read(book(sheet(rows)), "a.xlsx")) == ["Sheet 1", "near", "far"]


def test_a_wide_and_nearly_empty_area_is_read_cell_by_cell() -> None:
    columns = [chr(65 + n // 26) + chr(65 + n % 26) for n in range(600)]
    rows: dict[int, dict[str, str | float]] = {n + 1: {columns[n]: f"v{n}", "ZZ": n} for n in range(600)}
    table = texts(read(book(sheet(rows)), "a.xlsx"))[1]
    assert table.startswith("AA1: v0\nZZ1: 0\n")


def test_a_package_that_is_broken_inside_is_damaged() -> None:
    for part in ("xl/workbook.xml", "xl/worksheets/sheet1.xml"):
        with pytest.raises(Quarantined) as caught:
            read(book(sheet({1: {"A": "x"}}), **{part: "<worksheet><"}), "a.xlsx")
        assert caught.value.reason == "damaged"


def test_entities_are_not_expanded() -> None:
    entity = '<!DOCTYPE x [<!ENTITY boom SYSTEM "file:///etc/passwd">]>'
    content = book(entity + sheet({1: {"A": "calm &boom;"}}))
    assert "root" not in read(content, "a.xlsx").text
