"""Loaders: every format, and every bad input with the message that the user sees."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from pgneural import load
from pgneural.errors import UnreadableInput
from pgneural.load.lines import MAX_BYTES
from pgneural.types import BadRecord, Record


def read(path: Path, **options: object) -> tuple[list[Record], list[str]]:
    found = [_checked(record) for record in load.read([path], **options)]  # type: ignore[arg-type]
    good = [record for record in found if isinstance(record, Record)]
    return good, [str(record).removeprefix(f"{path}") for record in found if isinstance(record, BadRecord)]


def _checked(record: Record | BadRecord) -> Record | BadRecord:
    problem = load.check(record) if isinstance(record, Record) else None
    return problem if isinstance(problem, BadRecord) else record


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_beir_corpus_as_it_is(tmp_path: Path) -> None:
    line = {"_id": "d1", "title": "T", "text": "x", "metadata": {"year": 2003}}
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(line).encode() + b"\n\n"))
    (record,), bad = read(path)
    assert (record.external_id, record.title, record.content, record.metadata) == ("d1", "T", "x", {"year": 2003})
    assert record.origin.endswith("corpus.jsonl.gz:1")
    assert not bad


BAD_LINES = {
    b'{"_id": "1", "text": "a"': ":1: invalid JSON at character 24: Expecting ',' delimiter",
    b'["a"]': ":1: the line holds list, expected a JSON object",
    b'{"text": "a"}': ":1: no id; give each record a field _id or id or external_id, or name the field with --id-field",
    b'{"_id": "1", "text": "\xff"}': ":1: byte 0xff at offset 22 is not UTF-8; convert it",
    b'{"_id": "1", "text": " "}': ":1: document '1' has no text; give it a title or a text",
    b'{"_id": "1", "text": 5}': ":1: field text is a number, expected a string",
    b'{"_id": "1", "text": "a", "metadata": 3}': ":1: metadata is a number, expected an object",
    b'{"_id": "1", "text": "a\\u0000b"}': ":1: the text has a NUL byte at character 1, which PostgreSQL cannot store; remove it",
    b'{"_id": "1", "text": "a", "metadata": {"k": "\\u0000"}}': ":1: the metadata has a NUL byte at character 7, which PostgreSQL cannot store; remove it",
    b'{"_id": "1", "text": "a\\ud800"}': ":1: the text has half of a surrogate pair U+D800 at character 1, which is not UTF-8; convert it",
    b'{"_id": "1", "text": "a", "metadata": {"k": NaN}}': ":1: metadata of document '1' has NaN, Infinity or a cycle",
    b'{"_id": "1", "text": "a", "embedding": "x"}': ":1: embedding is a string, expected a list of numbers",
    b'{"_id": "1", "text": "' + b"a" * 10 * 2**20 + b'"}': f":1: the line has 10485785 bytes; at most {MAX_BYTES} are read",
}  # fmt: skip


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items(), ids=[m[4:30] for m in BAD_LINES.values()])
def test_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "c.jsonl", line + b'\n{"_id": "2", "text": "fine"}\n')
    good, bad = read(path)
    assert bad == [message]
    assert [record.external_id for record in good] == ["2"]


def test_a_backslash_before_u0000_is_not_a_nul(tmp_path: Path) -> None:
    line = json.dumps({"_id": "1", "text": "a", "k": "\\u0000"})
    assert read(write(tmp_path / "c.jsonl", line))[1] == []


def test_csv_columns_become_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeffid,title,text,lang\n1,T,"x, y\nz",en\n2,U,v,de\n3,W,only three\n')
    good, bad = read(path)
    assert [(r.external_id, r.content, r.metadata) for r in good] == [
        ("1", "x, y\nz", {"lang": "en"}),
        ("2", "v", {"lang": "de"}),
    ]
    assert bad == [":5: the row has 3 columns, expected 4 as in the header"]


def test_csv_fields_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "faq.csv", "question,answer\nwhy?,because\n")
    _, bad = read(path)
    assert bad == [":1: no column text, content or body; the columns are question, answer; name one with --text-field"]
    (record,), _ = read(path, fields=load.Fields(title="question", text="answer"))
    assert (record.title, record.content, record.external_id) == ("why?", "because", f"{path}:2")


def test_csv_bad_bytes_and_long_lines(tmp_path: Path) -> None:
    long = b"2," + b"a" * 10 * 2**20
    path = write(tmp_path / "a.csv", b"id,text\n1,caf\xe9\n" + long + b"\n3,fine\n")
    good, bad = read(path)
    assert [record.external_id for record in good] == ["3"]
    assert bad == [
        ":2: the text has byte 0xe9 at character 3, which is not UTF-8; convert it",
        f":3: the line has {len(long) + 1} bytes; at most {MAX_BYTES} are read",
    ]


def test_markdown_keeps_headings_and_takes_the_first_as_title(tmp_path: Path) -> None:
    text = "intro\n\n# The Title #\n\ntext\n\n## Part\nmore"
    (record,), _ = read(write(tmp_path / "a.md", text))
    assert (record.title, record.content) == ("The Title", text)
    assert record.external_id == str(tmp_path / "a.md")
    assert record.uri == (tmp_path / "a.md").as_uri()


def test_html_main_text(tmp_path: Path) -> None:
    body = "".join(
        f"<p>Paragraph {n} tells something about vaccines and how they work in the body.</p>" for n in range(5)
    )
    page = (
        f"<html><head><title>Vaccines</title></head><body><nav>Home Shop</nav><article>{body}</article></body></html>"
    )
    (record,), _ = read(write(tmp_path / "a.html", page))
    assert record.title == "Vaccines"
    assert "Paragraph 3" in record.content
    assert "Shop" not in record.content


def test_folder_glob_and_same_names_stay_apart(tmp_path: Path) -> None:
    for folder in ("x", "y/z"):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder / "README.md", f"# {folder}")
    write(tmp_path / "x" / "image.bin", b"\x00\x01")
    assert len({record.external_id for record in read(tmp_path)[0]}) == 2
    assert len(read(tmp_path / "*" / "README.md")[0]) == 1
    assert len(read(tmp_path / "**" / "*.md")[0]) == 2


def test_bad_text_file_is_one_bad_record(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", b"ok \xff"))[1] == [": byte 0xff at offset 3 is not UTF-8; convert it"]
    assert read(write(tmp_path / "b.txt", b"a\0b"))[1] == [
        ": the text has a NUL byte at character 1, which PostgreSQL cannot store; remove it"
    ]
    assert read(write(tmp_path / "c.txt.gz", b"not gzip"))[1][0].startswith(": cannot be read: BadGzipFile")
    assert read(write(tmp_path / "d.txt", b"a" * (MAX_BYTES + 1)))[1] == [": the file is longer than 8 MiB; split it"]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="no such file"):
        read(tmp_path / "nothing.jsonl")
    with pytest.raises(UnreadableInput, match=r"no reader for \.bin, and it is no text; known are jsonl, csv"):
        read(write(tmp_path / "a.bin", b"x\1"))
    assert read(tmp_path / "a.bin", format="text")[0][0].content == "x\1"


@pytest.mark.parametrize(
    ("given", "content"), [(b'{"_id": "1", "text": "json"}\n', "json"), (b"plain words", "plain words")]
)
def test_standard_input(monkeypatch: pytest.MonkeyPatch, given: bytes, content: str) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(given)))
    monkeypatch.setattr("sys.stdin", stdin)
    (record,) = load.read(["-"])
    assert isinstance(record, Record)
    assert record.content == content


def test_standard_library_records_are_distinct_and_the_same_every_time() -> None:
    from pgneural.load import stdlib

    first = list(stdlib.read())
    assert len(first) > 5000
    assert len({record.external_id for record in first}) == len(first)
    assert first == list(stdlib.read())
    by_name = {record.external_id: record.metadata for record in first}
    assert by_name["os.remove"]["kind"] == "function"
    assert by_name["os.remove"]["module"] == "os"


def test_unnamed_and_repeated_columns(tmp_path: Path) -> None:
    (record,), _ = read(write(tmp_path / "pandas.csv", ",text\n0,a\n"))
    assert (record.title, record.content, record.metadata) == ("", "a", {"": "0"})
    assert read(write(tmp_path / "twice.csv", "id,text,text\n1,a,b\n"))[1] == [
        ":1: the columns id, text, text do not all have names of their own; rename them"
    ]


def test_a_misspelt_field_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,title,body\n1,t,b\n")
    assert read(path, fields=load.Fields(text="txet"))[1][0].startswith(":1: no column txet; the columns are id, title")
    line = write(tmp_path / "a.jsonl", '{"id": "1", "title": "t", "body": "b"}')
    assert read(line, fields=load.Fields(text="txet"))[1] == [":1: no field txet; the fields are id, title, body"]


def test_files_without_text(tmp_path: Path) -> None:
    for name in ("a.txt", "a.md", "a.html"):
        assert read(write(tmp_path / name, " \n"))[1] == [": the file has no text"]
    assert read(write(tmp_path / "b.html", "just words"))[0][0].content.strip() == "just words"


def test_markdown_titles(tmp_path: Path) -> None:
    for text, title in {
        "---\ndate: 2020\n---\n# Real": "Real",
        "```\n# not\n```\n## Yes": "Yes",
        "Under\n=====\n": "Under",
        "no heading": "t.md",
        "# a" + " " * 200_000 + "b": "a" + " " * 200_000 + "b",
    }.items():
        assert read(write(tmp_path / "t.md", text))[0][0].title == title


def test_huge_numbers(tmp_path: Path) -> None:
    digits = "9" * 5000
    path = write(tmp_path / "n.jsonl", f'{{"_id": "1", "text": "a", "n": {digits}}}\n{{"_id": {{}}, "text": "a"}}')
    bad = read(path)[1]
    assert bad[0].startswith(":1: invalid JSON: ")
    assert bad[1] == ":2: id is an object, expected a string or a whole number"
