"""``index --prune``, replaced records, and what was not read: counted, and nothing else is touched."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pgneural import Collection, Database, Document, Record
from pgneural.cli import main
from pgneural.errors import RefusedRecords, UnreadableInput
from pgneural.ingest.documents import SeenIds


@pytest.fixture
def notes(db: Database) -> Collection:
    return db.collection("notes", encoder="hash")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders with like names, and rows in one of them."""
    for path in ("small/a.md", "small/b.md", "small/x/c.txt", "small2/d.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"the text of {path}")
    (tmp_path / "small" / "rows.csv").write_text("text\nrow one\nrow two\nrow three\n")
    (tmp_path / "small" / "own.csv").write_text("id,text\nr1,one\nr2,two\n")
    (tmp_path / "small" / "own.jsonl").write_text('{"id": "j1", "text": "one"}\n{"id": "j2", "text": "two"}\n')
    return tmp_path


def ids(notes: Collection, root: Path) -> set[str]:
    with notes.searcher.engine.connect() as connection:
        return {id_.removeprefix(f"{root}/") for id_ in connection.scalars(sa.select(Document.external_id))}


ALL = {"small/a.md", "small/b.md", "small/x/c.txt", "r1", "r2", "j1", "j2"} | {f"small/rows.csv:{n}" for n in (2, 3, 4)}


def test_what_is_gone_is_removed_and_nothing_else(notes: Collection, folder: Path) -> None:
    notes.index([folder / "small", folder / "small2"])
    gone = (folder / "elsewhere.md").as_uri()
    notes.index([Record("mine", "by hand"), Record("linked", "by hand", uri=(folder / "small" / "no.pdf").as_uri())])
    notes.index([Record(str(folder / "elsewhere.md"), "another", uri=gone)])
    (folder / "small" / "a.md").unlink()
    (folder / "small" / "x" / "c.txt").unlink()
    (folder / "small2" / "d.md").unlink()  # not below what is given
    (folder / "small" / "rows.csv").write_text("text\nrow one\nrow two\n")
    (folder / "small" / "own.csv").write_text("id,text\nr2,two\n")
    (folder / "small" / "own.jsonl").unlink()
    kept = {"small2/d.md", "mine", "linked", "elsewhere.md"}
    assert notes.index(folder / "small").pruned == 0
    assert ids(notes, folder) == ALL | kept
    report = notes.index(folder / "small", prune=True)
    assert report.pruned == 6
    assert ids(notes, folder) == {"small/b.md", "small/rows.csv:2", "small/rows.csv:3", "r2"} | kept
    assert notes.search("row three", mode="lexical", limit=9)[0].entity.content != "row three"
    assert notes.index(folder / "small", prune=True).pruned == 0


@pytest.mark.parametrize("spelled", ["small", "./small/", "small2/../small", "small/*.md", "small/a.md"])
def test_however_the_path_is_spelled(
    notes: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    monkeypatch.chdir(folder)
    notes.index("small")
    (folder / "small" / "a.md").unlink()
    (folder / "small" / "x" / "c.txt").unlink()
    if spelled == "small/a.md":  # which is not there: nothing can be said of it
        with pytest.raises(UnreadableInput):
            notes.index(spelled, prune=True)
        assert ids(notes, folder) == ALL
        return
    report = notes.index(spelled, prune=True)
    expected = {"small/a.md"} if "*" in spelled else {"small/a.md", "small/x/c.txt"}
    assert (report.pruned, ids(notes, folder)) == (len(expected), ALL - expected)


def test_nothing_is_removed_where_something_went_wrong(notes: Collection, folder: Path) -> None:
    notes.index(folder / "small")
    (folder / "small" / "own.csv").write_text("id,text\nr1\n")  # a bad row may be the one that is missing
    assert notes.index(folder / "small", prune=True).pruned == 0
    (folder / "small" / "a.md").unlink()
    with pytest.raises(RefusedRecords):
        notes.index(folder / "small", prune=True, bad_records="refuse")
    with pytest.raises(UnreadableInput):
        notes.index([folder / "small", folder / "nowhere"], prune=True)
    (folder / "small").rename(folder / "away")
    with pytest.raises(UnreadableInput, match="no such file"):
        notes.index(folder / "small", prune=True)
    (folder / "small").mkdir()  # as a disk that is not mounted
    with pytest.raises(UnreadableInput, match="no file of a known kind"):
        notes.index(folder / "small", prune=True)
    assert ids(notes, folder) == ALL


def test_what_others_store_meanwhile_stays(notes: Collection, db: Database, folder: Path) -> None:
    path = folder / "small" / "own.csv"
    notes.index(path)

    def reading() -> object:
        yield path
        path.write_text("id,text\nr2,two\nr9,new\n")
        db.existing("notes").index(path)

    assert notes.index(reading(), prune=True).pruned == 0  # type: ignore[arg-type]
    assert ids(notes, folder) == {"r1", "r2", "r9"}


def test_a_record_that_moves_to_another_file_stays(notes: Collection, folder: Path) -> None:
    notes.index(folder / "small")
    (folder / "small" / "own.csv").rename(folder / "small" / "other.csv")
    assert notes.index(folder / "small", prune=True).pruned == 0
    assert ids(notes, folder) == ALL


def test_replaced_records_are_counted_within_and_across_batches(notes: Collection) -> None:
    fillers = [Record(str(n), f"filler {n}") for n in range(700)]
    report = notes.index([Record("x", "a"), Record("x", "b"), *fillers, Record("x", "c"), Record("699", "d")])
    assert (report.replaced, report.inserted) == (3, 701)
    bad = notes.index([Record("y", "a"), Record("y", " ")])
    assert (bad.replaced, bad.inserted, bad.rejected) == (0, 1, 1)


def test_ids_that_were_met_take_little_memory() -> None:
    seen = SeenIds()
    assert not any(seen.add(str(n)) for n in range(20_000))
    assert all(str(n) in seen for n in range(0, 20_000, 7))
    assert seen.add("19999")
    assert "20000" not in seen
    assert len(seen._sorted) <= 15
    assert sum(numbers.nbytes for numbers in seen._sorted) <= 8 * 20_000


def test_the_command_line_says_it_all(url: str, folder: Path) -> None:
    small = folder / "small"
    (small / "link").symlink_to(folder / "small2")
    (small / "image.bin").write_bytes(b"")
    (small / "own2.csv").write_text("id,text\nr1,another\n")

    def run(*arguments: str) -> str:
        command = ["index", *arguments, "--collection", "notes", "--encoder", "hash", "--database", url]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return result.output

    said = run(str(small))
    assert "1 record was replaced by later ones with the same id" in said
    told = said[said.index("not read: ") :]
    assert f"1 of an unknown kind (.bin): {small}/image.bin" in told
    assert f"1 symbolic links (--follow-links reads them): {small}/link" in told
    (small / "a.md").unlink()
    said = run(str(small), "--follow-links", "--prune", "--json")
    report = json.loads(said)
    assert (report["pruned"], report["replaced"], report["skipped"]) == (1, 1, {"of an unknown kind (.bin)": 1})
    assert report["inserted"] == 1  # what the link leads to
    (small / "b.md").unlink()
    assert "1 document was removed: their files or records are gone" in run(str(small), "--prune")
    refused = CliRunner().invoke(main, ["index", "-", "--collection", "n", "--prune", "--database", url], input="words")
    assert (refused.exit_code, "--prune looks for files; name a file or folder" in refused.output) == (2, True)


def test_one_page_does_not_stop_a_run(notes: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgneural.load.extraction.SECONDS", 1.0)
    (tmp_path / "a.html").write_text("<p>a fox</p>")
    (tmp_path / "b.html").write_text("<p>" * 2_000_000)
    (tmp_path / "c.html").write_text("<p>a hound</p>")
    started = time.monotonic()
    report = notes.index(tmp_path)
    assert (report.inserted, report.rejected) == (2, 1)
    assert "took longer to parse than 1 s" in str(report.bad[0])
    assert time.monotonic() - started < 20
