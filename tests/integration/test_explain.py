"""What a search says it did is what it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pgneural import Collection, Database, Record
from tests.integration.test_lexical import zipf


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def many(database: Database) -> Collection:
    collection = database.collection("many", encoder="hash", language="simple")
    collection.index(Record(str(n), text, metadata={"n": n}) for n, text in enumerate(zipf(1, 5000)))
    return collection


def test_near(many: Collection) -> None:
    said = many.explain("wbz wcz", where="(metadata->>'n')::int % 2 = 0")
    stages = {stage.name: stage for stage in said.stages}
    assert said.strategy == "near"
    assert "documents_many_embedding_idx" in stages["near"].indexes
    assert stages["near"].rows == 200
    assert 100 < stages["near"].removed < 400
    assert "documents_many_terms_idx" in stages["rare_words"].indexes
    assert not {"exact", "fallback", "few_words"} & stages.keys()
    assert "At least 2,001 rows pass the filter, about" in str(said)
    assert not said.warnings
    assert all(set(hit.legs) == {"semantic", "lexical"} for hit in said.hits)
    assert 0 < sum(stage.ms for stage in said.stages) <= said.total_ms


def test_exact_and_why_fewer(many: Collection) -> None:
    said = many.explain("wbz wcz", where="(metadata->>'n')::int < 7")
    assert said.strategy == "exact"
    assert "7 rows pass the filter: few enough to compare them one by one." in said.words
    assert "Only 7 hits, because only 7 rows pass the filter." in said.words
    assert not {"near", "fallback", "rare_words"} & {stage.name for stage in said.stages}
    nothing = many.explain("wbz", mode="semantic", min_score=0.999)
    assert "Only 0 hits, because no other rows meet the threshold." in nothing.words
    wordless = many.explain("zebra", mode="lexical")
    assert "Only 0 hits, because no other rows share a word with the query." in wordless.words
    filtered = many.explain("zebra", mode="lexical", where="(metadata->>'n')::int < 7")
    assert "Only 0 hits, because no other rows share a word with the query." in filtered.words


def test_fallback(many: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgneural.statement.probe.EXACT_CHUNKS", 10)
    monkeypatch.setattr("pgneural.statement.vector_leg.EF_SEARCH", 10)
    monkeypatch.setattr("pgneural.statement.vector_leg.MAX_SCAN_TUPLES", 1)
    many.searcher.forget_statements()  # it keeps the statements that it has built
    said = many.explain("wbz wcz", mode="semantic", where="(metadata->>'n')::int % 200 = 0")
    many.searcher.forget_statements()
    assert said.strategy == "fallback"
    assert any("all 25 chunks of the rows that pass" in sentence for sentence in said.words)


def test_warns_where_an_index_is_not_used(many: Collection, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("DROP INDEX neural.documents_many_embedding_idx, neural.documents_many_terms_idx"))
    said = many.explain("wbz wcz")
    assert [warning.split(" on ")[0] for warning in said.warnings] == ["no vector index was used", "no index was used"]
    many.index([Record("new", "wa wb")])
    assert not many.explain("wbz wcz").warnings
