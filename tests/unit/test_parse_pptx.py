from __future__ import annotations

import pytest

from ingestion.errors import Quarantined
from ingestion.parse import parse
from tests.packages import NAMES, outline, package, read, relations, texts


def shape(words: str, place: str = "", properties: str = "") -> str:
    inner = "".join(f"<a:p>{properties}<a:r><a:t>{word}</a:t></a:r></a:p>" for word in words.split("|"))
    filled = f"<p:ph {place}/>" if place else ""
    return f"<p:sp><p:nvSpPr><p:nvPr>{filled}</p:nvPr></p:nvSpPr><p:txBody>{inner}</p:txBody></p:sp>"


def element(name: str, inner: str) -> str:
    return f"<p:{name} {NAMES}>{inner}</p:{name}>"


def slide(*shapes: str, kind: str = "sld") -> str:
    return element(kind, f"<p:cSld><p:spTree>{''.join(shapes)}</p:spTree></p:cSld>")


TITLE, BODY = 'type="title"', 'type="body"'


def deck(*slides: str, **parts: str) -> bytes:
    """The slides, the last one first in the package: their order is that of the presentation."""
    listed = "".join(f'<p:sldId id="{n}" r:id="r{n}"/>' for n in range(len(slides)))
    links = {f"r{n}": ("slide", f"slides/slide{len(slides) - n}.xml") for n in range(len(slides))}
    return package(
        {
            "_rels/.rels": relations({"r1": ("officeDocument", "ppt/presentation.xml")}),
            "ppt/presentation.xml": element("presentation", f"<p:sldIdLst>{listed}</p:sldIdLst>"),
            "ppt/_rels/presentation.xml.rels": relations(links),
            **{f"ppt/slides/slide{len(slides) - n}.xml": body for n, body in enumerate(slides)},
            **parts,
        }
    )


def test_slides_come_in_the_order_of_the_presentation_each_under_its_title_with_its_number() -> None:
    parsed = read(
        deck(
            slide(shape("Opening", TITLE), shape("Why|How", BODY)),
            slide(shape("Only a box")),
            slide(shape("Closing", TITLE), shape("Thanks", 'type="subTitle"')),
        ),
        "talk.pptx",
    )
    assert parsed.title == "Opening"
    assert [(b.page, text) for b, text in zip(parsed.blocks, texts(parsed), strict=True)] == [
        (1, "Opening"),
        (1, "- Why\n- How"),
        (2, "Slide 2"),
        (2, "Only a box"),
        (3, "Closing"),
        (3, "Thanks"),
    ]


def test_bullets_keep_their_level_and_groups_are_read() -> None:
    deep = '<a:p><a:pPr lvl="1"/><a:r><a:t>deep</a:t></a:r></a:p></p:txBody>'
    listed = shape("top", BODY).replace("</p:txBody>", deep)
    plain = shape("plain", BODY, "<a:pPr><a:buNone/></a:pPr>")
    parsed = read(deck(slide(f"<p:grpSp>{listed}</p:grpSp>", plain)), "a.pptx")
    assert texts(parsed) == ["Slide 1", "- top\n  - deep", "plain"]


def test_dates_numbers_and_footers_of_the_layout_are_left_out() -> None:
    frame = (shape("2026", 'type="dt"'), shape("7", 'type="sldNum"'), shape("ACME", 'type="ftr"'))
    assert texts(read(deck(slide(shape("Kept", TITLE), *frame)), "a.pptx")) == ["Kept"]


def test_a_table_repeats_merged_cells_in_each_row_and_column() -> None:
    def cell(words: str, more: str = "") -> str:
        return f"<a:tc {more}><a:txBody><a:p><a:r><a:t>{words}</a:t></a:r></a:p></a:txBody></a:tc>"

    rows = (
        cell("Both", 'gridSpan="2"') + cell("", 'hMerge="1"') + cell("Third"),
        cell("down", 'rowSpan="2"') + cell("1") + cell("2"),
        cell("", 'vMerge="1"') + cell("3") + cell("4"),
    )
    table = (
        f"<p:graphicFrame><a:tbl>{''.join(f'<a:tr>{row}</a:tr>' for row in rows)}</a:tbl></p:graphicFrame>"
    )
    assert outline(read(deck(slide(table)), "a.pptx"))[1] == (
        "table",
        0,
        "| Both | Both | Third |\n| --- | --- | --- |\n| down | 1 | 2 |\n| down | 3 | 4 |",
    )


def test_notes_charts_and_diagrams_are_read() -> None:
    points = "".join(f'<c:pt idx="{n}"><c:v>{v}</c:v></c:pt>' for n, v in enumerate(("East", "West")))
    values = "".join(f'<c:pt idx="{n}"><c:v>{v}</c:v></c:pt>' for n, v in enumerate(("3", "4")))
    chart = (
        f"<c:chartSpace {NAMES}><c:chart><c:title><a:p><a:r><a:t>Growth</a:t></a:r></a:p></c:title>"
        f"<c:plotArea><c:ser><c:tx><c:v>Sales</c:v></c:tx><c:cat>{points}</c:cat><c:val>{values}</c:val></c:ser>"
        "</c:plotArea></c:chart></c:chartSpace>"
    )
    words = "".join(f"<a:p><a:r><a:t>{word}</a:t></a:r></a:p>" for word in ("Plan", "Do"))
    diagram = f"<dgm:dataModel {NAMES}>{words}</dgm:dataModel>"
    body = slide(
        '<p:graphicFrame><c:chart r:id="c"/></p:graphicFrame>',
        '<p:graphicFrame><dgm:relIds r:dm="d"/></p:graphicFrame>',
    )
    links = {
        "c": ("chart", "../charts/chart1.xml"),
        "d": ("diagramData", "../diagrams/data1.xml"),
        "n": ("notesSlide", "../notes/n1.xml"),
    }
    parts = {
        "ppt/slides/_rels/slide1.xml.rels": relations(links),
        "ppt/charts/chart1.xml": chart,
        "ppt/diagrams/data1.xml": diagram,
        "ppt/notes/n1.xml": slide(shape("1", 'type="sldNum"'), shape("Say hello.", BODY), kind="notes"),
    }
    assert texts(read(deck(body, **parts), "a.pptx")) == [
        "Slide 1",
        "Growth",
        "|  | Sales |\n| --- | --- |\n| East | 3 |\n| West | 4 |",
        "- Plan\n- Do",
        "Notes: Say hello.",
    ]


def test_a_slide_that_cannot_be_read_ends_the_document_and_names_its_place() -> None:
    told: list[str] = []
    content = deck(slide(shape("fine", TITLE)), "<p:sld")
    with pytest.raises(Quarantined) as caught:
        parse(content, "a.pptx", None, told.append)
    assert (caught.value.reason, told[-1]) == ("damaged", "slide 2")
