"""Indexing: what is stored, what is kept, what is never encoded twice, what is refused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgneural import Collection, Database, Document, Record
from pgneural.encoders.hashing import HashEncoder
from pgneural.errors import EncoderMismatch, InvalidFilter, InvalidName, RefusedRecords, UnknownCollection
from pgneural.ingest.documents import Ingest
from pgneural.types import EncoderInput, Vector
from pgneural.worker import Worker
from tests.fixtures.tables import Execute, until


class Counting(HashEncoder):
    """Counts what it encodes."""

    encoded: list[EncoderInput]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "encoded", [])

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        self.encoded.extend(items)
        return super().encode_documents(items)


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def notes(db: Database, encoder: Counting) -> Collection:
    return db.collection("notes", encoder=encoder)


def content(notes: Collection) -> list[Any]:
    """Return everything that is stored for a collection, without database keys and times."""
    chunks = notes.chunks
    statement = (
        sa.select(
            Document.external_id, Document.title, Document.content, Document.metadata_, Document.uri,
            chunks.c.ordinal, chunks.c.text, chunks.c.locator, chunks.c.hash, chunks.c.embedding,
        )
        .join(chunks, chunks.c.source_id == Document.id)
        .order_by(Document.external_id, chunks.c.ordinal)
    )  # fmt: skip
    with notes.searcher.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]


LONG = " ".join(f"Sentence number {n} tells of the fox." for n in range(200))


def test_unchanged_documents_are_not_encoded_again(notes: Collection, encoder: Counting) -> None:
    records = [Record("1", "fox"), Record("2", LONG, title="Long"), Record("3", "", title="only a title")]
    first = notes.index(records)
    assert (first.inserted, first.unchanged) == (3, 0)
    stored, count = content(notes), len(encoder.encoded)
    second = notes.index(records)
    assert (second.inserted, second.updated, second.unchanged) == (0, 0, 3)
    assert len(encoder.encoded) == count
    assert content(notes) == stored


def test_metadata_only_changes_never_encode(notes: Collection, encoder: Counting) -> None:
    notes.index([Record("1", "fox", metadata={"lang": "en"})])
    encoder.encoded.clear()
    report = notes.index([Record("1", "fox", metadata={"lang": "de"}, uri="file:///x")])
    assert (report.updated, report.unchanged, encoder.encoded) == (1, 0, [])
    assert content(notes)[0][3:5] == ({"lang": "de"}, "file:///x")


def test_only_changed_chunks_are_encoded_and_vanished_ones_deleted(notes: Collection, encoder: Counting) -> None:
    notes.index([Record("1", LONG)])
    before = len(content(notes))
    encoder.encoded.clear()
    report = notes.index([Record("1", LONG + " And a new end.")])
    assert 1 <= len(encoder.encoded) <= 2
    assert report.chunks_reused >= before - 1
    notes.index([Record("1", "short")])
    assert [row[6] for row in content(notes)] == ["short"]


def test_stored_state_is_that_of_a_clean_run(db: Database, notes: Collection) -> None:
    notes.index([Record("1", LONG), Record("2", "old"), Record("3", "stays")])
    notes.index([Record("1", LONG[:900] + "changed"), Record("2", "new", title="t")])
    clean = db.collection("clean", encoder="hash")
    clean.index([Record("1", LONG[:900] + "changed"), Record("2", "new", title="t"), Record("3", "stays")])
    assert content(notes) == content(clean)


def test_nothing_is_encoded_twice(db: Database, execute: Execute, url: str) -> None:
    """Not the same text in another document or collection, nor after a deletion, nor for a table."""
    notes = db.collection("notes", encoder="hash")
    fox, other = {"id": "1", "text": "a fox"}, {"id": "2", "text": "a fox"}
    first = notes.index([fox, other])
    assert (first.chunks_encoded, first.chunks_reused) == (1, 1)
    notes.delete(["1", "2"])
    again = notes.index([fox, other, {"id": "3", "text": "an owl"}])
    assert (again.chunks_encoded, again.chunks_reused) == (1, 2)
    assert len(notes.search("fox", mode="semantic", limit=2)) == 2
    assert db.collection("copies", encoder="hash").index([fox]).chunks_encoded == 0
    assert db.collection("short", encoder="hash", dimensions=8).index([fox]).chunks_encoded == 1, "another revision"
    execute("CREATE TABLE pets (id int PRIMARY KEY, body text)")
    execute("SELECT neural.watch('pets', '{body}', encoder => 'hash')")
    execute("INSERT INTO pets VALUES (1, 'a fox'), (2, 'a new one')")
    worker = Worker(url, as_superuser=True)
    worker.run(once=True)
    (done,) = worker.totals.values()
    assert (done.chunks_encoded, done.chunks_reused) == (1, 1)
    ids = execute("SELECT count(*) FROM neural.vectors WHERE encoder = 'hash'")
    assert ids == [(4,)]


@given(
    runs=st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.text("xy. ", min_size=1, max_size=60).filter(str.strip)), max_size=4
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_runs_ends_like_one(db: Database, runs: list[dict[str, str]]) -> None:
    for name in ("many", "once"):
        if any(c.name == name for c in db.status().collections):
            db.drop(name)
    many, once = db.collection("many", encoder="hash"), db.collection("once", encoder="hash")
    final: dict[str, str] = {}
    for run in runs:
        many.index([Record(key, text * 30) for key, text in run.items()])
        final |= run
    once.index([Record(key, text * 30) for key, text in final.items()])
    assert content(many) == content(once)


def test_last_of_several_records_with_one_id_wins(notes: Collection) -> None:
    notes.index([Record("1", "first"), Record("2", "other"), Record("1", "last")])
    assert [row[2] for row in content(notes)] == ["last", "other"]


def test_bad_records_are_reported_and_the_others_stored(notes: Collection) -> None:
    items = [{"id": "1", "text": "good"}, {"text": "no id"}, {"id": "2", "text": ""}, {"id": "3", "text": "a\0"}, 5]
    report = notes.index(items)  # type: ignore[arg-type]
    assert (report.inserted, report.rejected) == (1, 4)
    assert [bad.origin for bad in report.bad] == ["item 2", "item 3", "item 4", "item 5"]
    with pytest.raises(RefusedRecords, match=r"4 bad records, the first: item 2: no id; .* the other 2 are stored"):
        notes.index([*items, {"id": "9", "text": "also good"}], bad_records="refuse")  # type: ignore[list-item]
    assert notes.count() == 2


def test_precomputed_vectors(db: Database) -> None:
    given_ = db.collection("given", encoder="vectors:3")
    unit = np.eye(3, dtype=np.float32)
    report = given_.index(
        [
            Record("x", "one", embedding=unit[0]),
            Record("y", "two", embedding=unit[1]),
            Record("z", "", embedding=unit[2]),
            Record("short", "a", embedding=unit[0, :2]),
            Record("zero", "a", embedding=unit[0] * 0),
            Record("nan", "a", embedding=unit[0] * np.nan),
            Record("none", "a"),
        ]
    )
    assert [str(bad) for bad in report.bad] == [
        "item 4: embedding has 2 numbers, expected 3 as in the collection",
        "item 5: embedding is zero or not finite, so it has no direction",
        "item 6: embedding is zero or not finite, so it has no direction",
        "item 7: no embedding; vectors:3 needs 3 numbers",
    ]
    assert [hit.entity.external_id for hit in given_.search([0.1, 0.9, 0.2], limit=3)] == ["y", "z", "x"]
    moved = given_.index([Record("x", "one", embedding=unit[1]), Record("y", "two", embedding=unit[1])])
    assert (moved.updated, moved.unchanged) == (1, 1)


def test_mapped_documents_can_be_indexed(notes: Collection) -> None:
    notes.index(Document(external_id="1", title="T", content="fox", metadata_={"a": 1}))
    assert content(notes)[0][:4] == ("1", "T", "fox", {"a": 1})


def test_concurrent_runs_over_the_same_documents(notes: Collection, db: Database) -> None:
    def run(version: int) -> None:
        records = [Record(str(n), f"version {version} of {n}. " * 40) for n in range(120)]
        db.collection("notes").index(records if version % 2 else records[::-1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    rows = content(notes)
    for n in range(120):
        mine = [row for row in rows if row[0] == str(n)]
        assert [row[5] for row in mine] == list(range(len(mine)))
        assert mine[-1][2].endswith(mine[-1][6][-10:])
        assert all(row[6] in row[2] for row in mine)


@pytest.mark.parametrize("meanwhile", ["delete", "index"])
def test_a_document_that_another_process_changes_in_between(notes: Collection, db: Database, meanwhile: str) -> None:
    """The run has compared, and found nothing to encode, when somebody else deletes or changes the document."""
    records = [Record(str(n), f"fox {n}") for n in range(3)]
    notes.index(records)
    before = content(notes)
    ingest = Ingest(db.engine, notes.space, lambda: notes.encoder)
    reader, writer = ingest.connected(), ingest.connected()
    compared = ingest.compare([(record, "{}") for record in records], reader)
    assert all(document.row.chunks is None for document in compared.documents)
    assert ingest.encode(compared) == {}
    if meanwhile == "delete":
        notes.delete("1")
    else:
        notes.index(Record("1", "not a fox"))
    ingest.write(compared, {}, writer)
    reader.close()
    writer.close()
    assert content(notes) == before


def test_a_new_document_that_another_process_stores_first(notes: Collection, db: Database) -> None:
    ingest = Ingest(db.engine, notes.space, lambda: notes.encoder)
    writer = ingest.connected()
    compared = ingest.compare([(Record("1", "mine"), "{}"), (Record("2", "also mine"), "{}")], writer)
    made = ingest.encode(compared)
    notes.index(Record("2", "theirs"))
    written = ingest.write(compared, made, writer)
    writer.close()
    assert (written.inserted, written.updated) == (1, 1)
    assert [row[2] for row in content(notes)] == ["mine", "also mine"]


def test_interrupted_run_is_completed_by_the_next(notes: Collection) -> None:
    records = [Record(str(n), f"fox {n}") for n in range(2000)]

    def interrupted() -> Any:
        yield from records[:1500]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notes.index(interrupted())
    assert notes.count() < 1500
    assert notes.index(records).documents == 2000
    assert [row[0] for row in content(notes)] == sorted(str(n) for n in range(2000))


def test_vector_index_comes_after_a_large_load(db: Database) -> None:
    large = db.collection("large", encoder="hash")
    phases: list[Any] = []
    large.index([Record(str(n), f"fox {n}") for n in range(2500)], build_progress=phases.append)
    (status,) = db.status().collections
    assert (status.documents, status.chunks, status.indexed) == (2500, 2500, True)
    large.index([Record("new", "a fox that came later")])
    assert large.search("a fox that came later", limit=1)[0].entity.external_id == "new"


def test_delete_by_id_and_filter(notes: Collection) -> None:
    notes.index([Record(str(n), "fox", metadata={"even": n % 2 == 0}) for n in range(6)])
    assert notes.delete("5") == 1
    assert notes.delete(["0", "nothing"]) == 1
    assert notes.delete(["2", "3"], where="metadata->>'even' = 'true'") == 1
    assert notes.delete(where=Document.metadata_["even"].as_boolean()) == 1
    assert sorted(row[0] for row in content(notes)) == ["1", "3"]
    with pytest.raises(ValueError, match="give ids or a filter"):
        notes.delete()


def test_collections_keep_to_themselves(db: Database) -> None:
    one, two = db.collection("one", encoder="hash"), db.collection("two", encoder="vectors:2")
    one.index([Record("1", "fox")])
    two.index([Record("1", "fox", embedding=np.ones(2, np.float32))])
    db.drop("one")
    assert two.count() == 1
    with pytest.raises(UnknownCollection, match="no collection 'one'; the database has: two"):
        db.existing("one")
    with db.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM neural.documents")) == 1
        assert connection.scalar(sa.text("SELECT external_id FROM neural.two")) == "1"


@pytest.mark.parametrize("name", ["Field notes, 2024", 'quo"ted', "naïve 天気", "a.b", "x" * 39, "é" * 19, "select"])
def test_unusual_names(db: Database, name: str) -> None:
    made = db.collection(name, encoder="hash")
    made.index([Record("1", "fox")])
    made.index([Record(str(n), f"fox {n}") for n in range(2000)])
    made.index([Record("2001", "foxes")])
    assert db.existing(name).search("fox", where="external_id = '1'")[0].entity.external_id == "1"
    assert db.status().collections[0].indexed
    db.drop(name)
    assert db.status().collections == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "x" * 40,
        "a\0b",
        "\ud800",
        "documents_pkey",
        "documents_id_seq",
        "a\nb",
        "100%",
        "documents",
        "spaces",
        "collections",
    ],
)
def test_unusable_names(db: Database, name: str) -> None:
    with pytest.raises(InvalidName, match="collection name"):
        db.collection(name, encoder="hash")


def test_another_encoder_is_refused(db: Database, notes: Collection) -> None:
    with pytest.raises(EncoderMismatch, match="was encoded by hash, not by minilm"):
        db.collection("notes", encoder="minilm")
    with pytest.raises(EncoderMismatch, match="encoded by hash revision 1-256, but this is hash revision 1-128"):
        db.collection("notes", encoder=HashEncoder(dimensions=128)).index([Record("1", "fox")])


def test_making_a_collection_at_once_from_many_threads(db: Database) -> None:
    barrier = threading.Barrier(4)

    def make(_: int) -> int:
        barrier.wait()
        return db.collection("shared", encoder="hash").space.id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make, range(4)))) == 1


def test_a_model_folder_is_found_again_with_what_it_was_made_with(
    db: Database, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    made = db.collection("tiny", encoder=tiny_model.name, dimensions=8, query_prompt="search: ")
    made.index([Record("1", "the quick brown fox"), Record("2", "a lazy dog")])
    monkeypatch.chdir("/")
    again = db.existing("tiny", device="cpu")
    np.testing.assert_allclose(again.encoder.encode_query("fox"), made.encoder.encode_query("fox"), atol=1e-6)
    assert [h.score for h in again.search("fox")] == pytest.approx([h.score for h in made.search("fox")])
    assert db.collection("tiny", encoder=tiny_model).count() == 2


def test_a_collection_that_was_dropped_while_it_was_open(db: Database, notes: Collection) -> None:
    notes.index([Record("1", "fox")])
    for again in (None, "hash"):
        if "notes" in {status.name for status in db.status().collections}:
            db.drop("notes")
        if again:
            db.collection("notes", encoder=again)
        with pytest.raises(UnknownCollection, match="was dropped after it was opened; open it again"):
            notes.search("fox")
        with pytest.raises(UnknownCollection, match="was dropped after it was opened"):
            notes.index([Record("2", "fox")])
        with pytest.raises(UnknownCollection, match="was dropped after it was opened"):
            notes.delete("1")


def test_deleting_no_ids_deletes_nothing(notes: Collection) -> None:
    notes.index([Record("1", "fox")])
    assert notes.delete([], where="true") == 0
    assert notes.delete([]) == 0
    assert notes.count() == 1


def test_records_made_in_python_are_checked(notes: Collection) -> None:
    wrong: list[Any] = [
        Record("1", None),  # type: ignore[arg-type]
        Record(2, "a"),  # type: ignore[arg-type]
        Record("3", "a", embedding=[1.0]),  # type: ignore[arg-type]
        Record("4", "a", embedding=np.full(256, 1e300)),
        Record("x" * 601, "a"),
        Record("5", "a", metadata={"at": object()}),
    ]
    report = notes.index([*wrong, Record("6", "good")])
    assert (report.rejected, report.inserted) == (len(wrong), 1)
    assert [bad.reason for bad in report.bad[:5]] == [
        "text is NoneType, expected str",
        "id is int, expected str",
        "embedding is list, expected a float32 array",
        "embedding is an array of float64, shape (256,), expected a float32 array",
        "the id has 601 characters, at most 600 are indexable",
    ]


def test_records_are_read_in_the_caller_s_thread(notes: Collection) -> None:
    import sqlite3

    with sqlite3.connect(":memory:") as other:
        rows = other.execute("SELECT value, 'fox ' || value FROM json_each('[1, 2, 3]')")
        assert notes.index(Record(str(key), text) for key, text in rows).inserted == 3
    other.close()


def test_one_id_in_two_batches(notes: Collection) -> None:
    notes.index([Record("x", "before")])
    fillers = [Record(str(n), f"filler {n}") for n in range(600)]
    notes.index([Record("x", "between"), *fillers, Record("x", "before")])
    (row,) = [row for row in content(notes) if row[0] == "x"]
    assert (row[2], row[6]) == ("before", "before")


def without_words(notes: Collection) -> int:
    """Count the documents of a collection that have no words, although they have chunks."""
    terms = notes.chunks.name + "_terms"
    statement = sa.text(
        f"SELECT count(*) FROM neural.documents d WHERE collection = :name AND NOT EXISTS "  # noqa: S608
        f'(SELECT FROM neural."{terms}" t WHERE t.source_id = d.id)'
    )
    with notes.searcher.engine.connect() as connection:
        return int(connection.scalar(statement, {"name": notes.name}) or 0)


def test_documents_are_found_by_words_as_soon_as_they_are_stored(notes: Collection, db: Database) -> None:
    """A first run that is stopped, and what others find while it runs."""
    records = [Record(str(n), f"fox {n}") for n in range(2000)]
    found: list[int] = []

    def interrupted() -> Any:
        yield from records[:1600]
        other = db.existing("notes")
        until(lambda: other.count() > 0, 20)
        found.append(len(other.search("fox", mode="lexical", limit=2000)))
        assert other.count() >= found[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notes.index(interrupted())
    assert found[0] >= 512
    assert without_words(notes) == 0
    assert len(notes.search("fox", mode="lexical", limit=2000)) == notes.count() > 0
    changed = notes.index([Record("1", "hound"), Record("2", "fox 2", metadata={"a": 1})])
    assert (changed.updated, without_words(notes)) == (2, 0)
    assert notes.search("hound", mode="lexical")[0].entity.external_id == "1"


def test_an_interrupted_run_leaves_words_and_the_next_makes_their_index(notes: Collection, db: Database) -> None:
    records = [Record(str(n), f"fox {n}") for n in range(600)]
    Ingest(db.engine, notes.space, lambda: notes.encoder).run(records)  # killed before it came to the indexes
    assert without_words(notes) == 0
    notes.index([])
    with db.engine.connect() as connection:
        indexes = sa.text("SELECT count(*) FROM pg_indexes WHERE indexname = 'documents_notes_terms_idx'")
        assert connection.scalar(indexes) == 1


def test_a_title_with_more_words_than_a_tsvector_holds_is_found_by_its_last(db: Database) -> None:
    numbers = " ".join(str(n) for n in range(300_000))  # a tsvector holds 1 MB
    plain = db.collection("plain", encoder="hash")
    report = plain.index([Record("1", "fox"), Record("big", "fox", title=numbers), Record("2", "fox")])
    assert (report.inserted, report.rejected, without_words(plain)) == (3, 0, 0)
    assert [hit.entity.external_id for hit in plain.search("299999", mode="lexical")] == ["big"]


def test_a_document_whose_words_cannot_be_made_is_bad_and_the_others_are_stored(db: Database) -> None:
    spoken = db.collection("spoken", encoder="hash", language_by="(metadata->>'n')::int::text")
    with pytest.raises(InvalidFilter, match="does not work for a document: invalid input syntax.*1 such documents are"):
        spoken.index([Record(str(n), "fox", metadata={"n": "x" if n == 5 else "1"}) for n in range(9)])
    assert (spoken.count(), without_words(spoken)) == (8, 0)
    assert len(spoken.search("fox", mode="lexical")) == 8


def test_another_unique_index_is_an_error_and_not_tried_again_for_ever(notes: Collection, db: Database) -> None:
    with db.engine.begin() as connection:
        connection.execute(sa.text("CREATE UNIQUE INDEX one_uri ON neural.documents (collection, uri)"))
    with pytest.raises((sa.exc.IntegrityError, psycopg.errors.UniqueViolation), match="one_uri"):
        notes.index([Record("1", "fox", uri="same"), Record("2", "hound", uri="same")])
    assert content(notes) == []


def test_what_is_stored_before_another_process_is_quicker_is_counted_as_new(notes: Collection, db: Database) -> None:
    """A document that the server refuses halves the batch; the half that was stored is not compared again."""
    ingest = Ingest(db.engine, notes.space, lambda: notes.encoder)
    writer = ingest.connected()
    records = [Record("1", "mine"), Record("2", "a\x00b"), Record("3", "late"), Record("4", "later")]
    compared = ingest.compare([(record, "{}") for record in records], writer)
    made = ingest.encode(compared)
    notes.index(Record("4", "theirs"))
    written = ingest.write(compared, made, writer)
    writer.close()
    assert (written.inserted, written.updated, written.unchanged, written.rejected) == (2, 1, 0, 1)
    assert [row[2] for row in content(notes)] == ["mine", "late", "later"]
