"""Files that need a parser: charsets of HTML, what is text, and files that take too much."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pgneural import load
from pgneural.load import extraction
from pgneural.types import BadRecord, Record

TEXT = "Übergrößenträger: el niño y la niña, 20 €, garçon"


def read(path: Path, content: bytes | str) -> Record | BadRecord:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (record,) = load.read([path])
    return record


@pytest.mark.parametrize(
    ("start", "encoding"),
    [
        ('<meta charset="windows-1252">', "cp1252"),
        ("<META http-equiv=Content-Type content='text/html; charset=ISO-8859-1'>", "cp1252"),
        ('<?xml version="1.0" encoding="iso-8859-15"?>', "iso8859-15"),
        ('<!-- <meta charset="koi8-r"> --><meta charset=utf-8>', "utf-8"),
        ("<meta charset='utf-16'>", "utf-8"),
        ("<meta charset='koi8-r'>", "utf-16"),  # the byte order mark decides
        ("<meta charset='koi8-r'>", "utf-8-sig"),
        ("", "utf-8"),
    ],
)
def test_declared_charsets(tmp_path: Path, start: str, encoding: str) -> None:
    page = f"{start}<html><head><title>Größe</title></head><body><p>{TEXT}</p></body></html>"
    record = read(tmp_path / "a.html", page.encode(encoding))
    assert isinstance(record, Record), record
    assert (record.title, record.content.strip()) == ("Größe", TEXT)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"<meta charset=rot13><p>text", "declares the charset rot13, which is not known here; convert it to UTF-8"),
        (b"<meta charset=zlib><p>text", "declares the charset zlib, which is not known here"),
        (b"<meta charset=utf-7><p>text", "declares the charset utf-7, which is not known here"),
        (b"<meta charset=utf-8><p>caf\xe9", "byte 0xe9 at offset 26 is not UTF-8; convert it"),
        (b"<p>caf\xe9</p>", "byte 0xe9 at offset 6 is not UTF-8, and the page declares no other charset; declare it"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(tmp_path: Path, page: bytes, said: str) -> None:
    assert said in str(read(tmp_path / "a.html", page))


SILENT = (
    "<script>var secret = 'the script speaks of foxes'; document.write(secret)</script>"
    "<style>.secret { color: red }</style><noscript>secret: enable scripts</noscript>"
    "<template><p>secret template of a paragraph</p></template>"
)


def test_a_page_of_nothing_but_script_has_no_text(tmp_path: Path) -> None:
    for page in (
        f"<html><head><title>App</title>{SILENT}</head><body><div id=root></div>{SILENT}</body></html>",
        SILENT,
        "<script>never closed, secret",
        "<style>never closed, secret",
    ):
        assert str(read(tmp_path / "a.html", page)).endswith("the file has no text"), page


@pytest.mark.parametrize("body", ["<p>The fox is seen here.</p>", "seen", "<table><tr><td>seen</td></tr></table>"])
def test_script_and_style_never_become_text(tmp_path: Path, body: str) -> None:
    for page in (f"{SILENT}{body}{SILENT}", f"<html><body>{body}{SILENT}</body></html>", f"{body}<SCRIPT>secret"):
        record = read(tmp_path / "a.html", page)
        assert isinstance(record, Record), (page, record)
        assert "seen" in record.content
        assert "secret" not in record.content


def test_a_page_that_takes_too_long_is_a_bad_record_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(tmp_path / "warm.html", "<p>words</p>")
    monkeypatch.setattr(extraction, "SECONDS", 0.5)
    started = time.monotonic()
    bad = read(tmp_path / "slow.html", "<p>" * 2_000_000)
    assert "took longer to parse than 0.5 s, the limit for one such file; split the file" in str(bad)
    assert time.monotonic() - started < 10
    assert isinstance(read(tmp_path / "next.html", "<p>words</p>"), Record)


@pytest.mark.parametrize(
    "page", ["<" * 600_000, "<a" * 400_000, "<!--" * 200_000, "</" * 400_000, "<script " * 100_000]
)
def test_marks_without_end_are_read_in_linear_time(tmp_path: Path, page: str) -> None:
    started = time.monotonic()
    read(tmp_path / "a.html", page)
    assert time.monotonic() - started < 10


def test_a_page_that_needs_too_much_memory_is_read_without_its_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extraction.end_all()
    monkeypatch.setattr(extraction, "MEMORY", 200 * 2**20)
    record = read(tmp_path / "large.html", "<b><i>x</i></b>" * 500_000)
    assert isinstance(record, Record)
    assert record.content.split() == ["x"] * 500_000
    (waiting,) = extraction.waiting
    if sys.platform == "linux":
        assert psutil.Process(waiting.process.pid).rlimit(psutil.RLIMIT_AS)[0] == extraction.MEMORY
    extraction.end_all()
    monkeypatch.setattr(extraction, "MEMORY", 2**20)  # too little to begin with
    assert isinstance(read(tmp_path / "a.html", "<p>words</p>"), BadRecord)


ANSWERS = {
    "the parser crashed on it; mend the file": "os.abort()",
    "the parser needs more than 2 GiB for it; make it smaller": """say(b'{"error": "memory"}')""",
    "the parser crashed on it; mend": "say(b'no JSON')",
    "the parser crashed on it": "os.write(1, b'\\xff' * 8)",  # an answer longer than any
}


@pytest.mark.parametrize("said", ANSWERS)
def test_what_a_broken_parser_says_is_a_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    extraction.end_all()
    say = "say = lambda answer: os.write(1, struct.pack('>Q', len(answer)) + answer)"
    program = f"import os, struct\nos.write(1, b'+')\nos.read(0, 9)\n{say}\n{ANSWERS[said]}\n"
    (tmp_path / "extractors").mkdir()
    (tmp_path / "extractors" / "program.py").write_text(program)
    monkeypatch.setattr(extraction, "__file__", str(tmp_path / "extraction.py"))
    assert said in str(read(tmp_path / "a.html", "<p>words</p>"))
    assert extraction.waiting == []


def test_one_process_serves_many_pages_and_holds_nothing_of_ours(tmp_path: Path) -> None:
    extraction.end_all()
    with open(tmp_path / "ours", "wb"):
        read(tmp_path / "a.html", "<p>words</p>")
        (waiting,) = extraction.waiting
        child = psutil.Process(waiting.process.pid)
        read(tmp_path / "b.html", "<p>more words</p>")
        assert [process.process.pid for process in extraction.waiting] == [child.pid]
        if sys.platform == "linux":
            held = [os.readlink(f"/proc/{child.pid}/fd/{name}") for name in os.listdir(f"/proc/{child.pid}/fd")]
            assert all(target.startswith("pipe:") or target == os.devnull for target in held), held
    child.kill()  # it may end at any time: the next page gets another
    child.wait()
    assert isinstance(read(tmp_path / "c.html", "<p>words</p>"), Record)


PROGRAM = """
import sys
from pgneural import load
print([record.content for record in load.read(sys.argv[1:])])
"""


def test_it_works_in_a_program_without_a_guard_and_ends_with_it(tmp_path: Path) -> None:
    page, program = tmp_path / "a.html", tmp_path / "program.py"
    page.write_text("<p>words</p>")
    program.write_text(PROGRAM)
    (tmp_path / "json.py").write_text("raise SystemExit('the folder of a program is not ours to look into')")
    for command in (["-W", "error", str(program)], ["-c", PROGRAM]):
        result = subprocess.run(
            [sys.executable, "-P", *command, str(page)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (result.stdout, result.stderr) == ("['words']\n", ""), result.stderr


def test_ctrl_c_ends_the_page(tmp_path: Path) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            read(tmp_path / "slow.html", "<p>" * 2_000_000)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert extraction.waiting == []
