"""Small files of every format that is converted, written by hand: no other program is needed to make them.

Invariant: equal arguments give equal bytes.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from itertools import accumulate
from xml.sax.saxutils import escape

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_XML = '<?xml version="1.0" encoding="utf-8"?>'
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF whose pages show lines of any script; a line that begins with "# " is printed large."""
    letters = sorted({letter for page in pages for line in page for letter in line.removeprefix("# ")})
    codes = {letter: number for number, letter in enumerate(letters, start=1)}
    kids = " ".join(f"{7 + 2 * number} 0 R" for number in range(len(pages)))
    font = "<< /Type /Font /BaseFont /Some"
    system = "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >>"
    measures = "/FontBBox [0 0 1000 1000] /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        f"{font} /Subtype /Type0 /Encoding /Identity-H /DescendantFonts [4 0 R] /ToUnicode 6 0 R >>",
        f"{font} /Subtype /CIDFontType2 /DW 600 /FontDescriptor 5 0 R {system} >>",
        f"<< /Type /FontDescriptor /FontName /Some /Flags 4 {measures} >>",
        _stream(_to_unicode(codes)),
    ]
    shape = "/Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F 3 0 R >> >>"
    for number, page in enumerate(pages):
        objects += [
            f"<< {shape} /Contents {8 + 2 * number} 0 R >>",
            _stream(_shown(page, codes)),
        ]
    return _file_of(objects)


def _to_unicode(codes: Mapping[str, int]) -> str:
    rows = [f"<{code:04X}> <{letter.encode('utf-16-be').hex()}>" for letter, code in codes.items()]
    blocks = [rows[start : start + 100] for start in range(0, len(rows), 100)]
    shown = "\n".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /Some def /CMapType 2 def\n"
        f"1 begincodespacerange <0000> <FFFF> endcodespacerange\n{shown}\n"
        "endcmap CMapName currentdict /CMap defineresource pop end end"
    )


def _shown(page: Sequence[str], codes: Mapping[str, int]) -> str:
    told, place = ["BT"], 800
    for line in page:
        size = 24 if line.startswith("# ") else 10
        place -= 2 * size
        coded = "".join(f"{codes[letter]:04X}" for letter in line.removeprefix("# "))
        told.append(f"/F {size} Tf 1 0 0 1 60 {place} Tm <{coded}> Tj")
    return "\n".join([*told, "ET"])


def _stream(content: str) -> str:
    return f"<< /Length {len(content)} >>\nstream\n{content}\nendstream"


def _file_of(objects: Sequence[str]) -> bytes:
    parts = ["%PDF-1.4\n", *(f"{number} 0 obj\n{each}\nendobj\n" for number, each in enumerate(objects, start=1))]
    *places, end = accumulate(map(len, parts))
    rows = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{end}\n%%EOF\n"
    return f"{''.join(parts)}xref\n0 {size}\n0000000000 65535 f \n{rows}{trailer}".encode()


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    """A ZIP file."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def docx(body: str) -> bytes:
    """A Word document of a body in WordprocessingML; `paragraph` makes parts of it."""
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    part = "word/document.xml"
    return archive(_package(part) | {part: f'{_XML}<w:document xmlns:w="{main}"><w:body>{body}</w:body></w:document>'})


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of a Word document, of a style such as Heading1."""
    shape = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{shape}<w:r><w:t>{escape(text)}</w:t></w:r></w:p>"


def pptx(slides: Sequence[tuple[str, str]]) -> bytes:
    """A presentation of slides, each a title and a text."""
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/main"
    main = "http://schemas.openxmlformats.org/presentationml/2006/main"
    names = f'xmlns:a="{drawing}" xmlns:p="{main}" xmlns:r="{_OFFICE}"'
    ids = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in range(1, len(slides) + 1))
    parts = _package("ppt/presentation.xml") | {
        "ppt/presentation.xml": f"{_XML}<p:presentation {names}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": _relations(
            "slide", [f"slides/slide{n}.xml" for n in range(1, len(slides) + 1)]
        ),
    }
    for number, (title, text) in enumerate(slides, start=1):
        shapes = "".join(
            f'<p:sp><p:nvSpPr><p:cNvPr id="{id_}" name="{kind}"/><p:cNvSpPr/><p:nvPr><p:ph type="{kind}"/></p:nvPr>'
            f"</p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/><a:p><a:r><a:t>{escape(shown)}</a:t></a:r></a:p></p:txBody></p:sp>"
            for id_, kind, shown in ((2, "title", title), (3, "body", text))
        )
        parts[f"ppt/slides/slide{number}.xml"] = (
            f'{_XML}<p:sld {names}><p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/>'
            f"<p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>{shapes}</p:spTree></p:cSld></p:sld>"
        )
    return archive(parts)


def xlsx(sheets: Mapping[str, Sequence[Sequence[str]]]) -> bytes:
    """A workbook of sheets of rows of texts."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    listed = "".join(
        f'<sheet name="{escape(name)}" sheetId="{number}" r:id="rId{number}"/>' for number, name in enumerate(sheets, 1)
    )
    parts = _package("xl/workbook.xml") | {
        "xl/workbook.xml": f'{_XML}<workbook xmlns="{main}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": _relations(
            "worksheet", [f"worksheets/sheet{number}.xml" for number in range(1, len(sheets) + 1)]
        ),
    }
    for number, rows in enumerate(sheets.values(), start=1):
        shown = "".join(
            f'<row r="{place}">'
            + "".join(
                f'<c r="{chr(65 + column)}{place}" t="inlineStr"><is><t>{escape(cell)}</t></is></c>'
                for column, cell in enumerate(row)
            )
            + "</row>"
            for place, row in enumerate(rows, start=1)
        )
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'{_XML}<worksheet xmlns="{main}"><sheetData>{shown}</sheetData></worksheet>'
        )
    return archive(parts)


def epub(chapters: Sequence[tuple[str, str]]) -> bytes:
    """A book of chapters, each a title and a text."""
    ids = range(1, len(chapters) + 1)
    listed = "".join(f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in ids)
    spine = "".join(f'<itemref idref="c{n}"/>' for n in ids)
    parts: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f'{_XML}<container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="content.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>',
        "content.opf": f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Book</dc:title>'
        '<dc:identifier id="id">1</dc:identifier>'
        f"<dc:language>zh</dc:language></metadata><manifest>{listed}</manifest><spine>{spine}</spine></package>",
    }
    for number, (title, text) in enumerate(chapters, start=1):
        parts[f"c{number}.xhtml"] = (
            f'{_XML}<html xmlns="http://www.w3.org/1999/xhtml"><head><title>c</title></head>'
            f"<body><h1>{escape(title)}</h1><p>{escape(text)}</p></body></html>"
        )
    return archive(parts)


def notebook(cells: Sequence[tuple[str, str]]) -> bytes:
    """A Jupyter notebook of cells, each a kind (markdown, code) and a source."""
    shown = [
        {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)}
        | ({"execution_count": 1, "outputs": []} if kind == "code" else {})
        for kind, source in cells
    ]
    return json.dumps({"cells": shown, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def _package(main: str) -> dict[str, str | bytes]:
    return {
        "[Content_Types].xml": f'{_XML}<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": _relations("officeDocument", [main]),
    }


def _relations(kind: str, targets: Sequence[str]) -> str:
    rows = "".join(
        f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for number, target in enumerate(targets, start=1)
    )
    return f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{rows}</Relationships>'
