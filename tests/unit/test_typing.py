"""What type checkers infer; mypy checks this file with all others (`make lint`), pyright does too when it is run."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Hit, Hits, Report, Searchable
from pgneural.orm import SearchBinding, SearchQuery


class Base(DeclarativeBase):
    pass


class Typed(Base):
    __tablename__ = "typed"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    search = Searchable("text", encoder="hash")


def synchronous(session: Session) -> None:
    assert_type(Typed.search, SearchBinding[Typed])
    assert_type(Typed.search("a").where(Typed.id > 3).limit(3), SearchQuery[Typed])
    hits = Typed.search("a").all(session)
    assert_type(hits, Hits[Typed])
    for hit in hits:
        assert_type(hit, Hit[Typed])
        assert_type(hit.entity.text, str)
    assert_type(Typed.search.like(hits[0].entity).first(session), Hit[Typed] | None)
    assert_type(Typed.search.sync(session), Report)


async def asynchronous(session: AsyncSession) -> None:
    assert_type(Typed.search("a").all(session), Awaitable[Hits[Typed]])
    assert_type(await Typed.search("a").first(session), Hit[Typed] | None)
    assert_type(await Typed.search.sync(session), Report)


def test_types_are_those_at_run_time_too() -> None:
    assert isinstance(Typed.search, SearchBinding)
    assert isinstance(Typed.search("a"), SearchQuery)
