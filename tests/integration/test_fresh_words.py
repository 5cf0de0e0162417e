"""Rows that have just been written are found by their words, before anybody has encoded them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgneural import Searchable
from pgneural.store import queue
from tests.fixtures.orm import Create, texts


class Base(DeclarativeBase):
    pass


class Memo(Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="plain")
    search = Searchable("text", encoder="hash")


def found(session: Session, query: str, mode: str = "lexical") -> list[str]:
    return texts(Memo.search(query).mode(mode).all(session))


def test_the_first_rows_of_all_are_found_in_their_own_transaction(create: Create) -> None:
    with create(Base.metadata) as session:
        session.add_all([Memo(text="a red fox"), Memo(text="a grey owl")])
        session.flush()
        assert found(session, "foxes") == ["a red fox"]
        assert found(session, "foxes", "hybrid")[0] == "a red fox"
        session.rollback()
        assert found(session, "foxes") == []


def test_rows_of_others_are_found_before_a_worker_has_seen_them(create: Create, engine: sa.Engine) -> None:
    with create(Base.metadata) as session:
        session.add_all([Memo(text=f"a red fox {n}") for n in range(30)])
        session.flush()
        Memo.search.sync(session)
        session.add(Memo(text="a zebra and a fox"))
        session.commit()
    with Session(engine) as other:
        assert found(other, "zebra") == ["a zebra and a fox"]  # a word that no row had
        assert found(other, "zebra foxes")[0] == "a zebra and a fox"
        assert len(Memo.search("fox").mode("lexical").limit(50).all(other)) == 31
        assert found(other, '"red fox" -zebra 7')[0] == "a red fox 7"
        assert texts(Memo.search("fox").mode("lexical").where(Memo.text.like("%zebra%")).all(other)) == [
            "a zebra and a fox"
        ]
        other.execute(sa.update(Memo).where(Memo.id == 1).values(text="a quagga"))
        assert found(other, "quagga") == ["a quagga"]
        assert "a quagga" in texts(Memo.search("quagga fox").mode("hybrid").limit(50).all(other))


def test_words_that_are_indexed_rank_as_those_that_are_not(create: Create, engine: sa.Engine) -> None:
    with create(Base.metadata) as session:
        session.add_all([Memo(text=f"a red fox {n} " + "and so on " * n) for n in range(20)])
        session.flush()
        Memo.search.sync(session)
        session.add_all([Memo(text="a fox"), Memo(text="one more fox " + "and so on " * 30)])
        session.commit()
        before = Memo.search("fox").mode("lexical").limit(30).all(session)
        with engine.begin() as connection:
            assert queue.collect(connection, Memo.search.space(connection).id) == 2
        session.rollback()
        after = Memo.search("fox").mode("lexical").limit(30).all(session)
        assert texts(before) == texts(after)
