"""A chunk is never more visible than its row, and a search under row-level security is never short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from pgneural import Collection, Database, Record

OWNERS = {"scarce": 40, "many": 4000}  # rows that each may see: found one by one, and by the index
WORDS = ("fox", "dog", "owl", "bee", "elk", "yak")


@pytest.fixture(scope="module")
def database(new_database: Any, template: str) -> Iterator[Database]:
    with Database(new_database(template)) as opened:
        yield opened


@pytest.fixture(scope="module")
def secured(database: Database) -> Iterator[Collection]:
    made = database.collection("secured", encoder="hash")
    owners = [owner for owner, rows in OWNERS.items() for _ in range(rows)]
    made.index(
        Record(str(n), f"{WORDS[n % 6]} {WORDS[n % 5]} number {n}", metadata={"owner": owner})
        for n, owner in enumerate(owners)
    )
    with database.engine.begin() as connection:
        for owner in OWNERS:
            for statement in (
                f"CREATE ROLE {owner}",
                f"GRANT USAGE ON SCHEMA neural TO {owner}",
                f"GRANT SELECT ON ALL TABLES IN SCHEMA neural TO {owner}",
            ):
                connection.execute(sa.text(statement))
        connection.execute(sa.text("ALTER TABLE neural.documents ENABLE ROW LEVEL SECURITY"))
        connection.execute(
            sa.text("CREATE POLICY own ON neural.documents USING (metadata->>'owner' = current_user::text)")
        )
    assert any("row-level security of table neural.documents_secured " in d for d in database.check().differences)
    database.upgrade()
    assert not database.check().differences
    yield made
    database.drop("secured")
    with database.engine.begin() as connection:
        for owner in OWNERS:
            connection.execute(sa.text(f"DROP OWNED BY {owner}"))
            connection.execute(sa.text(f"DROP ROLE {owner}"))


@pytest.fixture(params=OWNERS)
def seen(request: pytest.FixtureRequest, secured: Collection, database: Database) -> Iterator[tuple[Collection, str]]:
    with Database(f"{database.url} options='-c role={request.param}'") as opened:
        yield opened.existing("secured"), request.param


@pytest.mark.parametrize("mode", ["semantic", "lexical", "hybrid"])
@pytest.mark.parametrize("where", [None, "external_id::int % 2 = 0"])
def test_searches_see_what_the_role_sees(seen: tuple[Collection, str], mode: str, where: str | None) -> None:
    collection, owner = seen
    hits = collection.search("fox owl", mode=mode, where=where, limit=5)
    assert len(hits) == 5
    assert {hit.entity.metadata_["owner"] for hit in hits} == {owner}
    every = collection.search("fox", mode="semantic", where=where, limit=10_000)
    assert len(every) == (OWNERS[owner] if where is None else OWNERS[owner] // 2)
    assert every.exhausted


def test_tables_of_the_collection_show_no_more(seen: tuple[Collection, str]) -> None:
    collection, owner = seen
    with collection.searcher.engine.connect() as connection:
        for table in ("documents", "documents_secured", "documents_secured_terms"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM neural.{table}")) == OWNERS[owner]  # noqa: S608


def test_without_policies_there_are_none(database: Database, secured: Collection) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE neural.documents DISABLE ROW LEVEL SECURITY"))
        connection.execute(sa.text("GRANT SELECT ON neural.documents_secured TO many"))
    database.upgrade()
    assert not database.check().differences
    with Database(f"{database.url} options='-c role=many'") as opened:
        assert len(opened.existing("secured").search("fox", mode="semantic", limit=9999)) == sum(OWNERS.values())
    with database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE neural.documents ENABLE ROW LEVEL SECURITY"))
    database.upgrade()
