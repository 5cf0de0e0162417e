"""The lexical leg: BM25 as the textbook has it, the same with pruning, with counts that equal a recount."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgneural import Collection, Database, Hits, Record, migrate
from pgneural.errors import InvalidFilter, InvalidQuery, UnknownLanguage
from pgneural.filter import condition
from pgneural.statement import Page, Query
from pgneural.store import lexical as store
from pgneural.store.schema import Space
from pgneural.types import Mode

WORDS = [f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]


def zipf(seed: int, documents: int, length: int = 30) -> list[str]:
    """Return texts whose words are as unevenly common as those of a language."""
    source = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    return [" ".join(source.choices(WORDS, weights, k=source.randint(3, 2 * length))) for _ in range(documents)]


def bm25(texts: Mapping[str, str], query: str, mean_length: float | None = None) -> dict[str, float]:
    """Rank by Lucene's BM25, word for word."""
    counts = {id_: Counter(text.lower().split()) for id_, text in texts.items()}
    mean = mean_length or sum(sum(count.values()) for count in counts.values()) / len(counts)
    scores: dict[str, float] = {}
    for id_, count in counts.items():
        length, score = sum(count.values()), 0.0
        for word in query.lower().split():
            having = sum(word in other for other in counts.values())
            idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
            score += idf * count[word] / (count[word] + 1.5 * (0.25 + 0.75 * length / mean)) if count[word] else 0
        if score > 0:
            scores[id_] = score
    return scores


def ids(hits: Hits) -> list[str]:
    return [hit.entity.external_id for hit in hits]


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def many(database: Database) -> Collection:
    collection = database.collection("many", encoder="hash", language="simple")
    collection.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(zipf(1, 5000)))
    return collection


def mean_length(collection: Collection) -> float:
    with collection.searcher.engine.connect() as connection:
        return float(connection.scalar(sa.select(Space.mean_length).where(Space.id == collection.space.id)) or 0)


@given(
    texts=st.lists(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=9
    ),
    words=st.lists(st.sampled_from("abcdefghxyz"), min_size=1, max_size=5),
    limit=st.integers(1, 10),
    offset=st.integers(0, 3),
    keep=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_bm25(
    database: Database, texts: list[str], words: list[str], limit: int, offset: int, keep: int
) -> None:
    if any(status.name == "small" for status in database.status().collections):
        database.drop("small")
    small = database.collection("small", encoder="hash", language="simple")
    small.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(texts))
    scores = bm25({str(n): text for n, text in enumerate(texts)}, " ".join(words), mean_length(small))
    kept = {id_: score for id_, score in scores.items() if int(id_) % keep == 0}
    expected = sorted(kept.values(), reverse=True)[offset : offset + limit]
    where = f"(metadata->>'n')::int % {keep} = 0"
    hits = small.search(" ".join(words), mode="lexical", where=where, limit=limit, offset=offset)
    assert [hit.score for hit in hits] == pytest.approx(expected, rel=1e-4)
    assert all(kept[hit.entity.external_id] == pytest.approx(hit.score, rel=1e-4) for hit in hits)
    assert [hit.rank for hit in hits] == list(range(offset + 1, offset + 1 + len(expected)))


def test_pruning_changes_nothing(many: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [" ".join(dict.fromkeys(text.split()[:6])) for text in zipf(2, 150)]
    filters = [None, "(metadata->>'n')::int % 3 < 2"]

    def run(rare: int) -> list[tuple[list[str], str]]:
        monkeypatch.setattr("pgneural.statement.lexical_leg.RARE_ROWS", rare)
        monkeypatch.setattr("pgneural.statement.probe.EXACT_CHUNKS", 100)
        many.searcher.forget_statements()  # it keeps the statements that it has built
        every = [many.search(query, mode="lexical", where=where) for query in queries for where in filters]
        return [(ids(hits), hits.strategy) for hits in every]

    pruned, unpruned = run(1000), run(10**9)
    many.searcher.forget_statements()
    assert {strategy for _, strategy in unpruned} == {"rare words"}
    assert [found for found, _ in pruned] == [found for found, _ in unpruned]
    strategies = Counter(strategy for _, strategy in pruned)
    assert min(strategies["rare words"], strategies["more words"]) > 20


def counted(collection: Collection) -> tuple[dict[str, int], tuple[int, float]]:
    with collection.searcher.engine.connect() as connection:
        terms = connection.execute(
            sa.text(
                "SELECT lexeme, sum(documents)::int FROM neural.term_counts WHERE space_id = :space"
                " GROUP BY 1 HAVING sum(documents) <> 0"
            ),
            {"space": collection.space.id},
        )
        totals = sa.text(
            "SELECT coalesce(sum(documents), 0)::int, coalesce(sum(tokens), 0) FROM neural.corpus_counts"
            " WHERE space_id = :space"
        )
        documents, tokens = connection.execute(totals, {"space": collection.space.id}).one()
        return {row[0]: row[1] for row in terms}, (documents, tokens)


def recount(texts: Sequence[str]) -> tuple[dict[str, int], tuple[int, float]]:
    return dict(Counter(word for text in texts for word in set(text.split()))), (
        len(texts),
        float(sum(len(text.split()) for text in texts)),
    )


def test_counts_equal_a_recount_whatever_happens(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    source, texts = random.Random(3), iter(zipf(4, 2000, 10))
    collection = database.collection("changing", encoder="hash", language="simple")
    stored: dict[str, str] = {}
    for step in range(40):
        monkeypatch.setattr(store, "FOLD_EVERY", source.choice([1, 10**9]))
        batch = {str(source.randrange(60)): next(texts) for _ in range(source.randint(1, 12))}
        collection.index(Record(id_, text) for id_, text in batch.items())
        stored |= batch
        if step % 3 == 0:
            gone = source.sample(sorted(stored), k=min(len(stored), 5))
            collection.delete(gone)
            stored = {id_: text for id_, text in stored.items() if id_ not in gone}
        assert counted(collection) == recount(list(stored.values()))
    scores = bm25(stored, "wa wb wc", mean_length(collection))
    hits = collection.search("wa wb wc", mode="lexical", limit=100)
    assert {hit.entity.external_id: hit.score for hit in hits} == pytest.approx(scores, rel=0.08)  # the mean may drift
    with database.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE neural.documents_changing_terms"))
    assert counted(collection) == recount([])
    collection.index([])
    assert counted(collection) == recount(list(stored.values()))


def test_weights_follow_the_mean_length(database: Database) -> None:
    growing = database.collection("growing", encoder="hash", language="simple")
    growing.index(Record(str(n), text) for n, text in enumerate(zipf(5, 50, 4)))
    before = mean_length(growing)
    growing.index(Record(f"long {n}", text) for n, text in enumerate(zipf(6, 50, 300)))
    assert mean_length(growing) > 5 * before
    with database.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT external_id, content FROM neural.growing"))
        texts = {row.external_id: row.content for row in rows}
    hits = growing.search("wa wz", mode="lexical", limit=100)
    assert {hit.entity.external_id: hit.score for hit in hits} == pytest.approx(
        bm25(texts, "wa wz", mean_length(growing)), rel=1e-4
    )


def test_what_can_be_asked(database: Database) -> None:
    notes = database.collection("notes", encoder="hash")
    notes.index(
        [
            Record("prime", "The prime number theorem describes primes."),
            Record("theorem", "A theorem on the number of prime ministers."),
            Record("minister", "The prime minister resigned."),
            Record("running", "Runners were running far."),
        ]
    )

    def found(query: str) -> set[str]:
        return set(ids(notes.search(query, mode="lexical")))

    assert found("prime") == {"prime", "theorem", "minister"}
    assert found("a prime runner") == {"prime", "theorem", "minister", "running"}  # any of the words
    for query in ('"prime number"', '"prime number" resigned'):
        assert ids(notes.search(query, mode="lexical", limit=1)) == ["prime"]
    assert found("prime -minister") == {"prime"}
    assert found('prime -"prime number"') == {"theorem", "minister"}
    assert found("minist*") == {"theorem", "minister"}
    assert found("RUN") == {"running"}
    for nothing in ("the of a", "zebra", '""', "-", '"', "' | & ! <-> :*", "\\", "()"):
        assert found(nothing) == set()
        assert len(notes.search(nothing, mode="hybrid")) == 4


def test_title_boost(database: Database) -> None:
    records = [Record("content", "fox fox and hound", "hound"), Record("title", "hound and hound", "fox")]
    plain = database.collection("plain", encoder="hash")
    boosted = database.collection("boosted", encoder="hash", title_boost=5)
    for collection in (plain, boosted):
        collection.index(records)
    assert ids(plain.search("fox", mode="lexical")) == ["content", "title"]
    assert ids(boosted.search("fox", mode="lexical")) == ["title", "content"]
    with pytest.raises(UnknownLanguage, match="title boost 5, not as .* title boost 0"):
        database.collection("boosted", title_boost=0)


def test_the_chunk_of_a_lexical_hit_says_the_words(database: Database) -> None:
    tales = database.collection("tales", encoder="hash")
    filler = "Nothing of note happened that day in the village by the sea. " * 60
    tales.index([Record("1", filler + "Then a unicorn appeared. " + filler, title="Tale")])
    (hit,) = tales.search("unicorn", mode="lexical")
    assert "unicorn" in hit.chunk.text
    assert hit.legs == {"lexical": hit.score}


def test_words_are_completed_after_a_run_was_cut_off(database: Database) -> None:
    cut = database.collection("cut", encoder="hash")
    cut.index([Record("1", "fox"), Record("2", "hound")])
    with database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM neural.documents_cut_terms"))
    assert cut.search("fox", mode="lexical") == []
    cut.index([Record("1", "fox")])
    assert ids(cut.search("fox", mode="lexical")) == ["1"]


def test_a_collection_of_an_earlier_version_gets_its_words(empty_url: str) -> None:
    with Database(empty_url) as database:
        database.upgrade()
        old = database.collection("old", encoder="hash")
        old.index([Record("1", "fox")])
        with database.engine.begin() as connection:
            migrate.downgrade(connection, "0001")
        database.upgrade()
        assert database.check().current
        reopened = database.collection("old")
        reopened.index([])
        assert ids(reopened.search("fox", mode="lexical")) == ["1"]


def test_long_and_odd_texts(database: Database) -> None:
    odd = database.collection("odd", encoder="hash")
    source = random.Random(7)
    long = " ".join("".join(source.choices("abcdefghijklmnop", k=8)) for _ in range(120_000))
    odd.index([Record("long", long), Record("title", "", "only a title"), Record("sign", "!!! ???")])
    assert ids(odd.search(long[:8], mode="lexical")) == ["long"]
    assert ids(odd.search("title", mode="lexical")) == ["title"]


def test_bad_questions(database: Database, many: Collection) -> None:
    with pytest.raises(InvalidQuery, match="mode is 'fuzzy', expected semantic, lexical, sparse, hybrid"):
        many.search("a", mode="fuzzy")
    for odd in ("a\0b", "\udc80"):
        with pytest.raises(InvalidQuery, match="NUL byte or half of a surrogate pair"):
            many.search(odd)
    with pytest.raises(InvalidQuery, match="needs a text"):
        many.search([1.0] * many.space.dimensions, mode="lexical")
    with pytest.raises(UnknownLanguage, match="no text search configuration 'klingon'; it has: .*english"):
        database.collection("k", encoder="hash", language="klingon")
    with pytest.raises(UnknownLanguage, match="language simple"):
        database.collection("many", language="german")


@pytest.mark.parametrize("where", [None, "(metadata->>'n')::int % 2 = 0"])
def test_candidates_come_from_the_words_index(many: Collection, where: str | None) -> None:
    with many.searcher.engine.connect() as connection:
        asked = Query(Mode.LEXICAL, Page(10), {"lexical": "wbz wcz"}, where=condition(where))
        select = asked.select(many.searcher.target(connection))
        compiled = select.compile(dialect=connection.dialect)
        rows: Any = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}", compiled.params).scalar()
    plan = next(node for node in nodes(rows[0]["Plan"]) if node.get("Subplan Name") == "CTE rare_words")
    assert [n["Actual Loops"] for n in nodes(plan) if n.get("Index Name") == "documents_many_terms_idx"] == [1]
    (unused,) = [node for node in nodes(rows[0]["Plan"]) if node.get("Subplan Name") == "CTE more_words"]
    assert all(node["Actual Loops"] == 0 for node in nodes(unused) if node.get("Relation Name", "").endswith("_terms"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def test_languages_by_row(db: Database) -> None:
    made = db.collection("tongues", encoder="hash", language="simple", language_by="metadata->>'lang'")
    made.index(
        [
            Record("de", "Die Häuser am See", metadata={"lang": "de-CH"}),
            Record("en", "The houses were running", metadata={"lang": "english"}),
            Record("none", "running houses"),
            Record("xx", "running houses", metadata={"lang": "tlh"}),
        ]
    )
    assert ids(made.search("Haus", mode="lexical")) == ["de"]
    assert ids(made.search("run house", mode="lexical")) == ["en"]
    assert set(ids(made.search("running", mode="lexical"))) == {"en", "none", "xx"}
    assert made.index(Record("none", "running houses", metadata={"lang": "en"})).updated == 1
    assert set(ids(made.search("run", mode="lexical"))) == {"en", "none"}
    reopened = db.collection("tongues")
    assert reopened.index(Record("en", "The houses were running", metadata={"lang": "xx"})).chunks_encoded == 0
    assert ids(reopened.search("run", mode="lexical")) == ["none"]
    with pytest.raises(UnknownLanguage, match="reads words as language simple.*language by metadata"):
        db.collection("tongues", language_by="title")
    with pytest.raises(InvalidFilter, match="language_by does not work"):
        db.collection("wrong", encoder="hash", language_by="no_such_column")
