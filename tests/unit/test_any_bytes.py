"""Whatever bytes a file has: nothing is raised, nothing hangs, and good rows are found."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgneural import load
from pgneural.load import csvfile
from pgneural.types import BadRecord, Record

PIECES = [
    b"<",
    b">",
    b"<p>",
    b"</",
    b"<!--",
    b"<script>",
    b"&#",
    b'"',
    b'""',
    b",",
    b";",
    b"\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
]
PIECES += [
    b"id,text\n",
    b"{",
    b'{"id": "1", "text": "a"}\n',
    b"[" * 50,
    b"\xe9",
    b"<meta charset=",
    b"sep=",
    b"# ",
    b"---\n",
]
ANYTHING = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.html", "a.md", "a.txt", "a.csv.gz"])
@given(content=ANYTHING)
@settings(max_examples=60, deadline=5000)
def test_nothing_is_raised(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        for record in load.read([path]):
            assert isinstance(record, (Record, BadRecord))
            assert isinstance(record, BadRecord) or isinstance(load.check(record), (str, BadRecord))


ROW = st.text(st.characters(codec="utf-8", exclude_characters='"\0', exclude_categories=["Cc", "Cs"]), min_size=1)


@given(rows=st.lists(ROW.filter(str.strip), min_size=1, max_size=20), at=st.integers(0, 19), quote=st.booleans())
@settings(max_examples=80, deadline=5000)
def test_good_rows_are_found_around_an_open_quote(rows: list[str], at: int, quote: bool) -> None:
    lines = [
        f'"{n}","{row}"\n' if quote else json.dumps({"id": str(n), "text": row}) + "\n" for n, row in enumerate(rows)
    ]
    lines.insert(at % (len(lines) + 1), '"bad","open\n' if quote else '{"id": "bad", "text": "open\n')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.csv" if quote else "a.jsonl")
        path.write_text(("id,text\n" if quote else "") + "".join(lines), encoding="utf-8", newline="")
        found = list(load.read([path]))
    good = [record for record in found if isinstance(record, Record)]
    assert [(record.external_id, record.content) for record in good] == [(str(n), row) for n, row in enumerate(rows)]
    assert len(found) == len(good) + 1


@pytest.mark.parametrize("line", [b'1,"\n', b'""x,"y\n', b'"""\n', b'a"b,"\n', b'1,"""a""\n', b'","\n', b'1,"a\n'])
def test_however_quotes_lie_no_line_is_read_more_than_a_few_times(line: bytes) -> None:
    rows = csvfile._Rows(io.BytesIO(line * 2000), "a", ",")
    assert sum(len(rows._taken) for _ in rows) <= 4 * 2000
