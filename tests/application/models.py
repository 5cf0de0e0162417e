"""The models of the application at each stage of its life.

``models(stage)`` gives the MetaData and the classes: ``before`` any search, then with ``search``, with another
``index``, with a column ``renamed``, and with one search ``removed``.
"""

from __future__ import annotations

import enum
import uuid
from datetime import date
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from pgneural import Searchable, VectorIndex

STAGES = ("before", "search", "index", "renamed", "removed")

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Status(enum.Enum):
    DRAFT = "draft"
    PUBLISHED = "published"


def models(stage: str) -> Any:
    """Return the application's classes as of a stage."""
    at = STAGES.index(stage)

    class Base(DeclarativeBase):
        metadata = sa.MetaData(naming_convention=NAMING)
        type_annotation_map = {dict[str, Any]: JSONB}  # noqa: RUF012

    class Author(Base):
        __tablename__ = "authors"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        name: Mapped[str]
        bio: Mapped[str | None]
        lang: Mapped[str] = mapped_column(server_default="en")
        articles: Mapped[list[Article]] = relationship(back_populates="author")
        if 1 <= at < 4:
            search = Searchable("name", "bio", encoder="hash", language_by="lang", sync="inline")

    tags = sa.Table(
        "article_tags",
        Base.metadata,
        sa.Column("article_id", sa.ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
    )

    class Article(Base):
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        author_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("authors.id"), index=True)
        title: Mapped[str]
        if at < 3:
            body: Mapped[str]
        else:
            text: Mapped[str]
        status: Mapped[Status]
        meta: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
        published: Mapped[date | None]
        author: Mapped[Author] = relationship(back_populates="articles")
        if at >= 1:
            search = Searchable(
                "title",
                "body" if at < 3 else "text",
                encoder="hash",
                index=VectorIndex(options={"m": 8}) if at >= 2 else None,
            )

    class Product(Base):
        __tablename__ = "products"
        __table_args__ = {"schema": "shop"}  # noqa: RUF012
        tenant: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        sku: Mapped[str] = mapped_column(primary_key=True)
        description: Mapped[str]
        price: Mapped[float]
        if at >= 1:
            search = Searchable("description", encoder="hash", dimensions=64, title_boost=2.0)

    del tags
    return SimpleNamespace(Base=Base, Author=Author, Article=Article, Product=Product, Status=Status)
