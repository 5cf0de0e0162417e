"""An application with a history adds search, changes it, drops some of it, and goes all the way back."""

from __future__ import annotations

import datetime
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.orm import Session

from pgneural.store.engine import libpq_url
from tests.application.models import models
from tests.application.project import Application, differences

ARTICLES = 1_500


def metadata(stage: str) -> sa.MetaData:
    found: sa.MetaData = models(stage).Base.metadata
    return found


@pytest.fixture
def application(tmp_path: Path, url: str) -> Iterator[Application]:
    made = Application(tmp_path / "application", url)
    yield made
    made.engine.dispose()


def fill(application: Application) -> None:
    """Put in what the application has before it knows of search."""
    at = models("before")
    with Session(application.engine) as session:
        authors = [at.Author(name=f"Author {n}", bio=f"Writes about subject {n}", lang="en") for n in range(20)]
        session.add_all(authors)
        session.flush()
        rows = [
            {
                "title": f"Story {n}",
                "body": f"All that is known of subject{n % 75} and of item{n}",
                "status": at.Status.PUBLISHED if n % 2 else at.Status.DRAFT,
                "published": datetime.date(2020 + n % 5, 1, 1),
                "author_id": authors[n % 20].id,
            }
            for n in range(ARTICLES)
        ]
        session.execute(sa.insert(at.Article), rows)
        session.add_all(
            at.Product(tenant=n % 3, sku=f"S{n}", description=f"A useful thing of kind{n % 50}", price=n)
            for n in range(300)
        )
        session.commit()


@pytest.mark.sqlalchemy20
def test_from_before_search_to_search_and_back(application: Application, programs: Any) -> None:
    application.upgrade("a2")
    application.assert_no_changes(metadata("before"))
    fill(application)

    text = application.autogenerate(metadata("search"), "b1")
    assert text.count("op.create_search(") == 3
    assert text.count("op.create_vector_index(") == 3
    assert text.count("op.drop_search(") == 3
    assert "op.create_table" not in text
    assert "op.drop_table" not in text
    application.upgrade()
    application.assert_no_changes(metadata("search"))
    searches(application)

    text = application.autogenerate(metadata("index"), "b2")
    assert text.count("autocommit_block") == 4
    assert "'m': 8" in text
    application.upgrade()
    application.assert_no_changes(metadata("index"))
    with application.engine.connect() as connection:
        options = connection.scalar(
            sa.text("SELECT reloptions FROM pg_class WHERE relname = 'articles_search_embedding_idx'")
        )
    assert "m=8" in options

    text = application.autogenerate(metadata("renamed"), "b3")
    assert text.count("op.change_search(") == 2
    rename = "op.alter_column('articles', '{}', new_column_name='{}')"
    application.rewrite(
        "b3",
        {
            r"op\.add_column\('articles', sa\.Column\('text'[^\n]*\n": rename.format("body", "text") + "\n",
            r" *op\.drop_column\('articles', 'body'\)\n": "",
            r"op\.add_column\('articles', sa\.Column\('body'[^\n]*\n": rename.format("text", "body") + "\n",
            r" *op\.drop_column\('articles', 'text'\)\n": "",
        },
    )
    application.upgrade()
    application.assert_no_changes(metadata("renamed"))
    renamed(application)

    text = application.autogenerate(metadata("removed"), "b4")
    assert text.count("op.drop_search(") == 1
    assert text.count("op.create_search(") == 1
    application.upgrade()
    application.assert_no_changes(metadata("removed"))
    pg_dump = programs("pg_dump")
    up, spaces = application.dump(pg_dump), application.spaces()
    assert "authors_search" not in up

    application.downgrade("base")
    with application.engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
        assert connection.scalar(sa.text("SELECT count(*) FROM neural.spaces")) == 0
        assert connection.scalar(sa.text("SELECT count(*) FROM neural.pending")) == 0
    application.upgrade()
    assert differences(application.dump(pg_dump), up) == []
    assert application.spaces() == spaces


def test_every_downgrade_is_the_reverse_of_its_upgrade(application: Application, programs: Any) -> None:
    application.upgrade("a2")
    pg_dump = programs("pg_dump")
    for stage, name in (("search", "b1"), ("index", "b2")):
        dump, spaces = application.dump(pg_dump), application.spaces()
        application.autogenerate(metadata(stage), name)
        application.upgrade()
        application.downgrade("-1")
        assert application.spaces() == spaces
        assert differences(application.dump(pg_dump), dump) == []
        application.upgrade()


def searches(application: Application) -> None:
    at = models("search")
    Article, Author, Product = at.Article, at.Author, at.Product
    with Session(application.engine) as session:
        for search, rows in ((Article.search, ARTICLES), (Author.search, 20), (Product.search, 300)):
            assert search.pending(session) == rows
            assert search.sync(session).rows == rows
        session.commit()
    with Session(application.engine) as session:
        hits = (
            Article.search("subject7")
            .mode("lexical")
            .where(Article.status == at.Status.PUBLISHED)
            .limit(5)
            .all(session)
        )
        assert [hit.entity.body.split()[5] for hit in hits] == ["subject7"] * 5
        joined = Article.search("subject7").select().join(Article.author).add_columns(Author.name)
        named = session.execute(joined).all()
        assert len(named) == 10
        assert named[0].name.startswith("Author")
        rare = Article.search("item1234").where(Article.author.has(Author.name == "Author 14"))
        assert rare.first(session).entity.title == "Story 1234"
        found = Product.search("kind7").where(Product.tenant == 1).limit(3).all(session)
        assert {hit.entity.tenant for hit in found} == {1}
        assert Author.search("subject 3").first(session).entity.name == "Author 3"
        author = Author(id=uuid.uuid4(), name="Nina", bio="Owls at night")
        session.add(author)
        session.commit()  # inline
        assert Author.search("owls").first(session).entity is author


def renamed(application: Application) -> None:
    at = models("renamed")
    Article = at.Article
    with Session(application.engine) as session:
        assert Article.search.pending(session) == ARTICLES  # it reads otherwise now
        report = Article.search.sync(session)
        assert (report.rows, report.chunks_encoded) == (ARTICLES, 0)  # but what it reads is the same
        session.execute(sa.update(Article).where(Article.title == "Story 5").values(text="A new text of zebras"))
        assert Article.search.pending(session) == 1
        assert Article.search.sync(session).chunks_encoded == 1
        assert Article.search("zebras").first(session).entity.title == "Story 5"
        session.commit()


def test_offline_mode_writes_a_script(application: Application, programs: Any) -> None:
    application.upgrade("a2")
    application.autogenerate(metadata("search"), "b1")
    config = application.config()
    command.upgrade(config, "a2:b1", sql=True)
    script = application.output.getvalue()
    psql = [programs("psql"), "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", libpq_url(application.url)]
    subprocess.run(psql, input=script, text=True, check=True, capture_output=True)
    application.assert_no_changes(metadata("search"))
