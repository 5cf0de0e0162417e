"""Files of every kind that has text: what is found in them, on which page, and what broken ones do."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import docx
import odfdo
import pptx
import pytest
import xlsxwriter
from docx.oxml import parse_xml

from pgneural import load
from pgneural.load import extraction
from pgneural.load.formats import FORMATS, SUFFIXES
from pgneural.types import BadRecord, Record


def word() -> bytes:
    document, file = docx.Document(), io.BytesIO()
    document.core_properties.author = "Ada"
    document.add_heading("Vaccines", level=1)
    document.add_paragraph("How vaccines work.")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "dose", "0.5 ml"
    document.save(file)
    return file.getvalue()


def presentation() -> bytes:
    slides, file = pptx.Presentation(), io.BytesIO()
    for title in ("Foxes", "Bridges"):
        slide = slides.slides.add_slide(slides.slide_layouts[5])
        slide.shapes.title.text = title
        slide.notes_slide.notes_text_frame.text = f"Say more of {title.lower()}."
    slides.save(file)
    return file.getvalue()


def sheet() -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        for name in ("Prices", "Stock"):
            tab = book.add_worksheet(name)
            tab.write_row(0, 0, ["article", "number"])
            tab.write_row(3, 0, [f"lamp of {name}", 17])
    return file.getvalue()


def open_text() -> bytes:
    document, file = odfdo.Document("text"), io.BytesIO()
    document.body.clear()
    document.body.append(odfdo.Header(2, "Bridges"))
    document.body.append(odfdo.Paragraph("Bridges carry load."))
    document.save(file)
    return file.getvalue()


def book() -> bytes:
    file = io.BytesIO()
    container = '<container><rootfiles><rootfile full-path="OEBPS/c.opf"/></rootfiles></container>'
    package = (
        '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Two tales</dc:title>'
        "<dc:creator>Ada</dc:creator></metadata>"
        '<manifest><item id="b" href="b%20b.xhtml"/><item id="a" href="a.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/c.opf", package)
        archive.writestr("OEBPS/a.xhtml", "<html><body><h1>One</h1><p>The <b>first</b> tale.</p></body></html>")
        archive.writestr("OEBPS/b b.xhtml", "<html><body><script>no</script><p>The second tale.</p></body></html>")
    return file.getvalue()


def mail() -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Lunch é", "ada@example.org", "bob@example.org"
    message["Date"] = "Mon, 01 Jan 2024 10:00:00 +0100"
    message.set_content("<p>Shall we <b>eat</b>?</p><script>no</script>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="menu.pdf")
    return message.as_bytes()


def calendar() -> bytes:
    return (
        b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nX-WR-CALNAME:Work\r\nBEGIN:VEVENT\r\nUID:1\r\n"
        b"DTSTAMP:20240101T100000Z\r\nDTSTART:20240102T090000Z\r\nSUMMARY:Talk about\r\n  foxes\r\nLOCATION:Room 7\r\n"
        b"END:VEVENT\r\nEND:VCALENDAR\r\n"
    )


def notebook() -> bytes:
    cells = [{"cell_type": "markdown", "source": ["# Foxes\n", "in numbers"]}, {"cell_type": "code", "source": "x = 1"}]
    return json.dumps({"cells": cells, "nbformat": 4}).encode()


def pdf(*pages: str) -> bytes:
    """Write a PDF with a line of text on each page."""
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for at, page in enumerate(pages):
        content = f"BT /F 20 Tf 20 100 Td ({page}) Tj ET"
        font = "/Resources<</Font<</F 3 0 R>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 200]{font}/Contents {5 + 2 * at} 0 R>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    objects.append("<</Title(Two pages)/Author(Ada)/CreationDate(D:20240102)>>")
    body, places = "%PDF-1.4\n", []
    for number, each in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj{each}endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer<</Size {size}/Root 1 0 R/Info {size - 1} 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    return f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


FILES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "a.pdf": (lambda: pdf("Foxes sleep.", "Bridges carry load."), "Two pages", "Foxes sleep.\fBridges carry load."),
    "a.docx": (word, "Vaccines", "# Vaccines\n\nHow vaccines work.\n\ndose | 0.5 ml"),
    "a.pptx": (presentation, "Foxes", "Foxes\n\nSay more of foxes.\fBridges\n\nSay more of bridges."),
    "a.xlsx": (sheet, "a.xlsx", "# Prices\narticle | number\nlamp of Prices | 17\f"
                                "# Stock\narticle | number\nlamp of Stock | 17"),
    "a.odt": (open_text, "a.odt", "## Bridges\n\nBridges carry load."),
    "a.epub": (book, "Two tales", "One\n\nThe first tale.\fThe second tale."),
    "a.rtf": (lambda: rb"{\rtf1\ansi Foxes \b sleep\b0 .}", "a.rtf", "Foxes sleep."),
    "a.eml": (mail, "Lunch é", "Shall we eat ?\n\nAttachments: menu.pdf"),
    "a.ics": (calendar, "Work", "Talk about foxes\n2024-01-02 09:00:00+00:00\nRoom 7"),
    "a.ipynb": (notebook, "Foxes", "# Foxes\nin numbers\n\nx = 1"),
    "a.py": (lambda: b"def fox():\n    pass\n", "a.py", "def fox():\n    pass\n"),
    "a.yaml": (lambda: b"fox: red\n", "a.yaml", "fox: red\n"),
    "LICENSE": (lambda: "Ada © 2024\n".encode(), "LICENSE", "Ada © 2024\n"),
}  # fmt: skip


def read(path: Path, content: bytes) -> Record | BadRecord:
    path.write_bytes(content)
    (record,) = load.read([path])
    return record


@pytest.mark.parametrize("name", FILES)
def test_what_is_in_a_file(tmp_path: Path, name: str) -> None:
    make, title, text = FILES[name]
    record = read(tmp_path / name, make())
    assert isinstance(record, Record), record
    assert (record.title, record.content) == (title, text)
    assert record.metadata["path"] == (tmp_path / name).as_posix()
    assert record.metadata["suffix"] == Path(name).suffix[1:]


def test_what_files_say_about_themselves(tmp_path: Path) -> None:
    facts = {"path", "folder", "suffix", "size", "modified"}
    about = {}
    for name in ("a.pdf", "a.docx", "a.epub", "a.eml"):
        record = read(tmp_path / name, FILES[name][0]())
        assert isinstance(record, Record)
        assert record.metadata["size"] == (tmp_path / name).stat().st_size
        about[name] = {key: value for key, value in record.metadata.items() if key not in facts}
    created = about["a.docx"].pop("created")
    assert created[:2] == "20"
    assert about == {
        "a.pdf": {"author": "Ada", "created": "2024-01-02", "pages": 2},
        "a.docx": {"author": "Ada"},
        "a.epub": {"author": "Ada", "pages": 2},
        "a.eml": {"from": "ada@example.org", "to": "bob@example.org", "date": "2024-01-01T10:00:00+01:00"},
    }


def test_every_extractor_is_a_format_and_has_a_module() -> None:
    folder = Path(extraction.__file__).with_name("extractors")
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "program"}
    assert modules == extraction.EXTRACTORS.keys() == {*modules} & FORMATS.keys()
    assert len(SUFFIXES) == sum(len(each.suffixes.split()) for each in FORMATS.values())  # none has two formats


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", b"", "the file is empty"),
        ("a.pdf", b"GIF89a", "is it what its name says?"),
        ("a.docx", b"PK\x03\x04", "is it what its name says?"),
        ("a.rtf", b"text", "it is no RTF"),
        ("a.eml", b"\n\n", "it is no mail: it has no headers"),
        ("a.ipynb", b"[]", "it is no notebook of Jupyter"),
        ("a.pdf", pdf(""), "none of its 1 pages has a text: they are pictures; run OCR"),
    ],
)
def test_what_has_no_text_is_refused_by_name(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    record = read(tmp_path / name, content)
    assert isinstance(record, BadRecord)
    assert said in record.reason


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extraction.end_all()
    monkeypatch.setattr(extraction, "MEMORY", 400 * 2**20)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(word())) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, b" " * 2**29 if name == "word/document.xml" else old.read(name))
    record = read(tmp_path / "a.docx", file.getvalue())
    assert isinstance(record, BadRecord)
    assert len(file.getvalue()) < 2**20
    assert isinstance(read(tmp_path / "b.docx", word()), Record)
    extraction.end_all()


PARSED = [name for name in FILES if SUFFIXES.get(Path(name).suffix) in extraction.EXTRACTORS]


def broken(content: bytes, chance: random.Random) -> bytes:
    """Truncate a file, flip some of its bits, or write over a part of it."""
    way, data = chance.randrange(3), bytearray(content)
    if way == 0:
        return content[: chance.randrange(len(content))]
    for _ in range(chance.randrange(1, 40)):
        at = chance.randrange(len(data))
        data[at] = data[at] ^ (1 << chance.randrange(8)) if way == 1 else 0xFF
    return bytes(data)


@pytest.mark.parametrize("name", PARSED)
def test_broken_files_stop_nothing(tmp_path: Path, name: str) -> None:
    chance, content = random.Random(name), FILES[name][0]()
    for number in range(25):
        (tmp_path / f"{number:03d}{Path(name).suffix}").write_bytes(broken(content, chance))
    (tmp_path / f"whole{Path(name).suffix}").write_bytes(content)
    read_all = list(load.read([tmp_path]))
    assert len(read_all) == 26
    assert isinstance(read_all[-1], Record)
    assert all(record.reason for record in read_all if isinstance(record, BadRecord))


def test_control_characters_part_words(tmp_path: Path) -> None:
    record = read(tmp_path / "a.eml", b"Subject: x\n\nfoxes\x03sleep\x00well\x0bby day\n")
    assert isinstance(record, Record)
    assert record.content.split() == ["foxes", "sleep", "well", "by", "day"]


def test_what_a_file_says_about_itself_can_be_stored(tmp_path: Path) -> None:
    written = pdf("Foxes sleep.").replace(b"(Ada)", b"(A\\000d\\003a)")
    record = read(tmp_path / "a.pdf", written)
    assert isinstance(record, Record)
    assert "\0" not in json.dumps(dict(record.metadata))
    assert not isinstance(load.check(record), BadRecord)


def test_word_documents_lose_nothing(tmp_path: Path) -> None:
    document, file = docx.Document(), io.BytesIO()
    paragraph = document.add_paragraph("kept ")
    namespace = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    for inner in (
        "<w:ins {}><w:r><w:t>inserted </w:t></w:r></w:ins>",
        "<w:del {}><w:r><w:delText>deleted </w:delText></w:r></w:del>",
        "<w:sdt {}><w:sdtContent><w:r><w:t>controlled</w:t></w:r></w:sdtContent></w:sdt>",
    ):
        paragraph._p.append(parse_xml(inner.format(namespace)))
    block = "<w:sdt {}><w:sdtContent><w:p><w:r><w:t>cover</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    document.element.body.insert(0, parse_xml(block.format(namespace)))
    table = document.add_table(1, 3)
    for at, text in enumerate("557"):
        table.cell(0, at).text = text
    table.cell(0, 2).add_table(1, 1).cell(0, 0).text = "nested"
    document.save(file)
    record = read(tmp_path / "a.docx", file.getvalue())
    assert isinstance(record, Record)
    assert record.content == "cover\n\nkept inserted controlled\n\n5 | 5 | 7 nested"


def rewritten(content: bytes, **files: bytes) -> bytes:
    """Return an archive with other or further files."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in {*old.namelist(), *files}:
            new.writestr(name, files[name] if name in files else old.read(name))
    return file.getvalue()


@pytest.mark.parametrize(
    ("chapter", "text"),
    [
        (b"<html><body><div>One<p>two</p></div><table><tr><td>a</td><td>b</td></tr></table></body></html>",
         "One\n\ntwo\n\na\n\nb"),
        ("<?xml version='1.0' encoding='iso-8859-1'?><html><body>Größe</body></html>".encode("latin-1"), "Größe"),
        ("<html><body>Größe</body></html>".encode("utf-16"), "Größe"),
        (b"<html><body><p>a&nbsp;b<br>c</p></body></html>", "a b\n\nc"),
        (b"", ""),
    ],
)  # fmt: skip
def test_chapters_however_they_are_written(tmp_path: Path, chapter: bytes, text: str) -> None:
    fonts = b"<encryption><EncryptedData><CipherReference URI='OEBPS/font.otf'/></EncryptedData></encryption>"
    record = read(
        tmp_path / "a.epub", rewritten(book(), **{"OEBPS/a.xhtml": chapter, "META-INF/encryption.xml": fonts})
    )
    assert isinstance(record, Record), record
    assert record.content == f"{text}\fThe second tale."
    locked = fonts.replace(b"font.otf", b"a.xhtml")
    refused = read(tmp_path / "b.epub", rewritten(book(), **{"META-INF/encryption.xml": locked}))
    assert "it is protected against copying" in str(refused)


def test_mails_as_programs_write_them(tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "Plan"
    message.set_content("first")
    message.make_mixed()
    for part in ("second", "third"):
        more = EmailMessage()
        more.set_content(part)
        message.attach(more)
    inner = EmailMessage()
    inner["Subject"] = "Inner"
    inner.set_content("forwarded")
    message.add_attachment(inner)
    record = read(tmp_path / "a.eml", message.as_bytes())
    assert isinstance(record, Record), record
    assert record.content.split() == ["first", "second", "third", "Inner", "forwarded"]
    for header in (b"Date: Mon, 1 Jan 99999999999999999999 10:00:00 +0000", b"From: =?utf-16?b?2ADYAA==?=", b"To: <"):
        record = read(tmp_path / "b.eml", header + b"\nSubject: only a subject\n\n")
        assert isinstance(record, Record), record
        assert (record.title, record.content) == ("only a subject", "only a subject")


def test_a_broken_date_loses_itself_alone(tmp_path: Path) -> None:
    record = read(tmp_path / "a.ics", calendar() + calendar().replace(b"DTSTART:20240102T090000Z", b"DTSTART:soon"))
    assert isinstance(record, Record), record
    assert record.content.split("\n\n") == [
        "Talk about foxes\n2024-01-02 09:00:00+00:00\nRoom 7",
        "Talk about foxes\nRoom 7",
    ]


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.odt"])
def test_a_broken_description_loses_itself_alone(tmp_path: Path, name: str) -> None:
    make, _, text = FILES[name]
    described = {"a.odt": "meta.xml"}.get(name, "docProps/core.xml")
    with zipfile.ZipFile(io.BytesIO(make())) as archive:
        written = archive.read(described)
    record = read(tmp_path / name, rewritten(make(), **{described: re.sub(rb"\d{4}-\d\d-\d\dT", b"soon-", written)}))
    assert isinstance(record, Record), record
    assert (record.content, "created" in record.metadata) == (text, False)
