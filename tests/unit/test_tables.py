"""CSV and JSONL as they come: quotes, delimiters, encodings, columns with names of ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_load import read, write


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        ('id,text\n1,"open\n2,fine\n3,also\n', ["2", "3"], [2]),
        ('id,text\n1,"open\n2,"fine, and quoted"\n3,also\n', ["2", "3"], [2]),
        ('id,text\n1,a\n2,"open\n3,b\n4,"two\nlines"\n5,"x"y\n6,z\n', ["1", "3", "4", "6"], [3, 7]),
        ('id,text\n1,"first"\n2,"last, open', ["1"], [3]),
        ('id,text\n1,6" pipe\n2,fine\n', ["1", "2"], []),
        ('id,text\n1,"say ""hello"""\n2,fine\n', ["1", "2"], []),
    ],
)
def test_an_open_quote_spoils_its_line_only(tmp_path: Path, content: str, good: list[str], bad: list[int]) -> None:
    found, problems = read(write(tmp_path / "a.csv", content))
    assert [record.external_id for record in found] == good
    assert [int(problem.split(":")[1]) for problem in problems] == bad
    assert all("invalid CSV" in problem and ";" in problem for problem in problems)


def test_an_open_quote_in_a_large_file(tmp_path: Path) -> None:
    lines = [f"{n},text number {n} {'of a long row' * 20}\n" for n in range(60_000)]  # more than a record may have
    lines[10] = '10,"open\n'
    found, problems = read(write(tmp_path / "a.csv", "id,text\n" + "".join(lines)))
    assert len(found) == 59_999
    assert [problem.split(" ")[0] for problem in problems] == [":12:"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_delimiters_line_ends_and_unicode(tmp_path: Path, delimiter: str, ends: str, encoding: str) -> None:
    rows = [["id", "text", "lang"], ["1", f'"one{delimiter} two"', "en"], ["2", "größer, als; das | da", "de"]]
    rows[2][1] = rows[2][1].replace(delimiter, "/")
    text = "".join(delimiter.join(row) + ends for row in rows)
    found, bad = read(write(tmp_path / "a.csv", text.encode(encoding)))
    assert bad == []
    assert [(r.external_id, r.content, r.metadata) for r in found] == [
        ("1", f"one{delimiter} two", {"lang": "en"}),
        ("2", rows[2][1], {"lang": "de"}),
    ]


def test_other_ways_to_say_the_delimiter(tmp_path: Path) -> None:
    (record,), _ = read(write(tmp_path / "a.csv", "sep=^\nid^text\n1^a, b; c\n"))
    assert record.content == "a, b; c"
    (record,), _ = read(write(tmp_path / "one.csv", "text\nfree words, with a comma\n"))
    assert record.content == "free words, with a comma"
    _, bad = read(write(tmp_path / "b.csv", "frage;antwort\na;b\n"))
    assert bad == [":1: no column text, content or body; the columns are frage, antwort; name one with --text-field"]
    broken = "id,text\n1,a\n".encode("utf-16") + b"\x00"
    assert "is not utf-16" in read(write(tmp_path / "c.csv", broken))[1][-1]


def test_jsonl_in_other_unicode(tmp_path: Path) -> None:
    lines = [json.dumps({"_id": str(n), "text": f"größer {n}"}, ensure_ascii=False) for n in range(3)]
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32"):
        for ends in ("\n", "\r\n", "\r"):
            found, bad = read(write(tmp_path / "a.jsonl", (ends.join(lines) + ends).encode(encoding)))
            assert (bad, [record.content for record in found]) == ([], ["größer 0", "größer 1", "größer 2"])


def test_text_in_other_unicode(tmp_path: Path) -> None:
    for name in ("a.txt", "a.md"):
        for encoding in ("utf-8-sig", "utf-16", "utf-32", "utf-16-le"):
            (record,), _ = read(write(tmp_path / name, "größer als\nzwei".encode(encoding)))
            assert record.content == "größer als\nzwei"


def test_columns_named_metadata_and_embedding(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "id,text,metadata,embedding\n"
        '1,a,"{""year"": 2003}","[0.5, 1]"\n'
        "2,b,plain words,yes\n"
        "3,c,,\n"
        "4,d,[1],5\n"
        '5,e,{not json,"[0.5, ""x""]"\n'
        '6,f,"[]",[]\n',
    )
    found, bad = read(path)
    assert [(r.external_id, r.metadata) for r in found] == [
        ("1", {"year": 2003}),
        ("2", {"metadata": "plain words", "embedding": "yes"}),
        ("3", {}),
        ("4", {"metadata": "[1]", "embedding": "5"}),
    ]
    assert found[0].embedding is not None
    np.testing.assert_array_equal(found[0].embedding, [0.5, 1])
    assert all(record.embedding is None for record in found[1:])
    assert bad == [
        ":6: embedding is a list, expected a list of numbers",
        ":7: embedding has shape (0,), expected a list of numbers",
    ]


def test_the_text_may_be_a_column_named_metadata(tmp_path: Path) -> None:
    from pgneural import load

    path = write(tmp_path / "a.csv", "id,metadata,embedding\n1,words,title\n")
    (record,), bad = read(path, fields=load.Fields(text="metadata", title="embedding"))
    assert (bad, record.content, record.title, record.metadata) == ([], "words", "title", {})


def test_records_say_which_file_they_came_from(tmp_path: Path) -> None:
    csv = write(tmp_path / "a.csv", "text,uri\nwords,\nmore,https://example.org\n")
    found, _ = read(csv)
    assert [record.uri for record in found] == [f"{csv.as_uri()}#{csv}:2", "https://example.org"]
    jsonl = write(tmp_path / "a.jsonl", '{"id": "a b#1", "text": "words"}')
    assert read(jsonl)[0][0].uri == f"{jsonl.as_uri()}#a%20b%231"


def test_blank_lines_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgneural.load.lines.MAX_BLANK_LINES", 1000)
    for name in ("a.csv", "a.jsonl"):
        _, (bad,) = read(write(tmp_path / name, "\n" * 5000))
        assert "1001 blank lines in a row; the rest is not read" in bad
