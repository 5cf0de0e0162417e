"""The search of a table without a class: from Python by name, and from the shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Collection, Database, Searchable, TableSearch, evaluate
from pgneural.cli import main
from pgneural.errors import (
    InvalidFilter,
    InvalidQuery,
    UnknownCollection,
    UnknownDocument,
    UnknownSpace,
    UnpermittedModel,
)
from pgneural.worker import Worker
from tests.fixtures.tables import Execute

ANIMALS = ("fox", "owl", "cat", "dog")


def work(url: str) -> None:
    Worker(url, as_superuser=True).run(once=True)


@pytest.fixture
def shop(execute: Execute, url: str) -> Execute:
    execute("CREATE SCHEMA shop")
    execute("CREATE TYPE mood AS ENUM ('calm', 'wild')")
    execute(
        "CREATE TABLE shop.pets (id int PRIMARY KEY, name text, body text, mood mood, price numeric, born date,"
        " photo vector(3), odd point)"
    )
    execute("SELECT neural.watch('shop.pets', '{name,body}', encoder => 'hash')")
    for n in range(40):
        animal, mood = ANIMALS[n % 4], "wild" if n % 2 else "calm"
        execute(
            "INSERT INTO shop.pets VALUES (%s, %s, %s, %s::text::mood, 9.5, '2026-01-01', '[1,2,3]', '(1,2)')",
            n, f"{animal} {n}", f"a {mood} {animal} of number {n}", mood,
        )  # fmt: skip
    work(url)
    return execute


@pytest.fixture
def pets(shop: Execute, url: str) -> Iterator[TableSearch[Any]]:
    with Database(url) as database:
        yield database.table("shop.pets.search")


def names(hits: Any) -> list[str]:
    return [hit.entity.name for hit in hits]


def test_searches_as_a_collection_does(pets: TableSearch[Any]) -> None:
    assert pets.name == "shop.pets.search"
    hits = pets.search("fox", limit=10)
    assert len(hits) == 10
    assert hits.exhausted is False
    assert all("fox" in name for name in names(hits))
    assert {"semantic", "lexical"} <= hits[0].legs.keys()
    assert (hits[0].entity.mood, str(hits[0].entity.price)) == ("calm", "9.5")
    assert names(pets.search("owl", mode="lexical", where=("id < :most", {"most": 6}))) == ["owl 1", "owl 5"]
    assert len(pets.search("owl", where="mood = 'calm'", limit=25)) == 20
    assert names(pets.search({"fox": 1, "cat": -1}, limit=1, offset=1))[0].startswith("fox")
    assert len(pets.search("a", limit=4, group_by="mood", per_group=2)) == 4
    assert pets.search("fox", boosts={"id": 100.0}, limit=1)[0].entity.id == 39
    assert pets.search([0.5] * 256, limit=3).strategy == "exact"
    explained = pets.explain("fox", limit=2)
    assert "compare them one by one" in str(explained)
    assert len(explained.hits) == 2


def test_likes_recommends_and_discovers(pets: TableSearch[Any]) -> None:
    assert "0" not in [pets.id_of(hit.entity) for hit in pets.like("0")]
    assert all("fox" in name for name in names(pets.like("0", limit=5)))
    assert all("owl" in name for name in names(pets.recommend(["1", "5"], ["0"], limit=4)))
    assert all("cat" in name for name in names(pets.discover("number", [("2", "1"), ("6", "0")], limit=5)))
    for wrong in ("99", "x", "1,2"):
        with pytest.raises(UnknownDocument, match="shop.pets.search has no row"):
            pets.like(wrong)


def test_counts(pets: TableSearch[Any]) -> None:
    assert pets.total() == 40
    assert pets.total(query="fox", where="id < 10") == 3
    assert pets.facets("mood") == {"calm": 20, "wild": 20}
    assert pets.facets("mood", query="fox") == {"calm": 10}
    with pytest.raises(InvalidFilter, match="the columns of pets"):
        pets.facets("nothing")


def test_is_judged_like_collections_and_classes(pets: TableSearch[Any], url: str) -> None:
    queries, qrels = {"q": "fox 4"}, {"q": {"4": 1}}

    class Base(DeclarativeBase):
        pass

    class Pet(Base):
        __tablename__ = "pets"
        __table_args__ = ({"schema": "shop"},)
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        body: Mapped[str]
        search = Searchable("name", "body", encoder="hash")

    by_name = evaluate(pets, queries, qrels)
    with Database(url) as database, Session(database.engine) as session:
        by_class = evaluate(Pet.search, queries, qrels, session=session)
    assert by_name.modes.keys() == by_class.modes.keys() == {"semantic", "lexical", "hybrid"}
    for mode, result in by_name.modes.items():
        assert result.mean == by_class.modes[mode].mean
    assert by_name.modes["lexical"].mean["mrr@10"] == 1
    with pytest.raises(InvalidQuery, match="give session="):
        evaluate(Pet.search, queries, qrels)


def test_keys_of_several_columns_and_names_that_are_taken(execute: Execute, url: str) -> None:
    execute('CREATE TABLE notes (metadata text, "group" int, registry text, PRIMARY KEY (metadata, "group"))')
    execute("SELECT neural.watch('notes', '{registry}', encoder => 'hash')")
    execute("INSERT INTO notes VALUES ('a', 1, 'a fox'), ('a', 2, 'an owl'), ('b', 1, 'a red fox')")
    work(url)
    with Database(url) as database:
        notes = database.table("notes.search")
        assert {notes.id_of(hit.entity) for hit in notes.search("fox", mode="lexical")} == {"a,1", "b,1"}
        assert notes.id_of(notes.like("a,1", limit=1)[0].entity) == "b,1"
        with pytest.raises(UnknownDocument, match="the value of metadata, group"):
            notes.like("a")


def test_follows_a_switch_and_a_change_of_columns(pets: TableSearch[Any], shop: Execute, url: str) -> None:
    shop("SELECT neural.create_space('shop.pets', 'search', 'small', 'hash', 64, options => '{\"dimensions\": 64}')")
    work(url)
    shop("SELECT neural.switch_space('shop.pets', 'search', 'small')")
    with Database(url) as database:
        later = database.table("shop.pets.search")
        assert later.encoder.dimensions == 64
        assert names(later.search("fox", limit=3)) == names(later.search("fox", limit=3))
    assert len(pets.search("fox", limit=10)) == 10


def test_only_what_the_host_permits_is_loaded(shop: Execute, url: str, tmp_path: Path) -> None:
    shop("ALTER TABLE neural.spaces DISABLE TRIGGER USER")
    shop("UPDATE neural.spaces SET encoder = %s", str(tmp_path))
    with Database(url) as database, pytest.raises(UnpermittedModel, match="which this host does not permit"):
        database.table("shop.pets.search").search("fox")


def test_names_that_are_not_there(shop: Execute, url: str) -> None:
    with Database(url) as database:
        database.collection("tips", encoder="hash")
        assert isinstance(database.find("tips"), Collection)
        assert isinstance(database.find("pets.search"), TableSearch)
        with pytest.raises(UnknownSpace, match="no search and no collection 'shop.cats.search'"):
            database.table("shop.cats.search")
        with pytest.raises(UnknownSpace, match="'tips' is a collection"):
            database.table("tips")
        with pytest.raises(UnknownCollection, match="no collection 'shop.cats.search'"):
            database.find("shop.cats.search")


def run(url: str, *arguments: str) -> Result:
    return CliRunner(env={"PGNEURAL_DATABASE_URL": url, "COLUMNS": "200"}).invoke(main, list(arguments))


def test_from_the_shell(shop: Execute, url: str, tmp_path: Path) -> None:
    found = run(url, "search", "shop.pets.search", "fox", "--where", "id < :n", "--param", "n=9", "--limit", "2")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[0].split() == ["rank", "score", "key", "snippet"]
    as_json = json.loads(run(url, "search", "shop.pets.search", "owl", "--mode", "lexical", "--json").stdout)
    assert as_json["hits"][0]["row"]["name"].startswith("owl")
    assert "photo" not in as_json["hits"][0]["row"]
    assert "rows pass the filter" in run(url, "search", "shop.pets.search", "fox", "--explain").stdout
    asked = ("search", "shop.pets.search", "fox", "--input", "lexical=owl", "--limit", "40", "--json")
    by_leg = json.loads(run(url, *asked).stdout)
    assert {hit["row"]["name"][:3] for hit in by_leg["hits"] if hit["legs"]["lexical"] > 0} == {"owl"}
    assert json.loads(run(url, "like", "shop.pets.search", "0", "--json").stdout)["hits"]
    assert run(url, "discover", "shop.pets.search", "--pair", "0", "1").exit_code == 0
    counted = json.loads(run(url, "facets", "shop.pets.search", "mood", "--json").stdout)
    assert counted["facets"] == [{"value": "calm", "documents": 20}, {"value": "wild", "documents": 20}]
    assert run(url, "count", "shop.pets.search", "--query", "fox", "--where", "id < 10").stdout == "3\n"
    (tmp_path / "q.tsv").write_text("q\tfox 4\n")
    (tmp_path / "r.txt").write_text("q 0 4 1\n")
    judged = run(url, "evaluate", "shop.pets.search", "--queries", str(tmp_path / "q.tsv"), "--qrels",
                 str(tmp_path / "r.txt"), "--modes", "lexical")  # fmt: skip
    assert "lexical" in judged.stdout, judged.output
    missing = run(url, "search", "shop.cats.search", "fox")
    assert missing.exit_code == 1
    assert missing.output.startswith("Error: no collection 'shop.cats.search'")


def test_a_table_that_is_gone_is_named(shop: Execute, url: str) -> None:
    shop("DROP TABLE shop.pets CASCADE")
    with Database(url) as database, pytest.raises((InvalidQuery, UnknownSpace)):
        database.table("shop.pets.search")
