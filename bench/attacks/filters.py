"""Filters, boosts and groupings as text that try to leave the place where they stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.attacks import Group, Input, differences, new_database
from pgneural import Boost, Database, Document, Searchable
from pgneural.cli import main
from pgneural.errors import PgneuralError
from pgneural.store.embedded import EmbeddedServer
from pgneural.store.engine import libpq_url


class _Base(DeclarativeBase):
    pass


class _Item(_Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    tenant: Mapped[str]
    search = Searchable("text", encoder="hash")


OPENINGS = {
    "plain": "false",
    "bracket in a string": "'(' = ''",
    "bracket in an escape string": r"E'\'(' = ''",
    "escape string that goes on in the next line": "E'x'\n'\\'(' = ''",
    "escape string after a carriage return": "e'x'\r'\\'(' = ''",
    "backslash at the end of a plain string": "'(\\' = ''",
    "bracket in dollar quotes": "$q$($q$ = ''",
    "dollar quotes in dollar quotes": "$a$ $b$ '( $b$ $a$ = ''",
    "dollar quotes that look open": "'$x$(' = '$x$'",
    "Unicode string": r"U&'\0028' = ''",
    "Unicode string with an escape of its own": "U&'(!0028' UESCAPE '!' = ''",
    "national string": "n'(' = ''",
    "bit string": "B'0' = B'1'",
    "bracket in a comment": "/* ( */ false",
    "nested comments": "/* ( /* ' */ ( */ false",
    "comment to the end of the line": "--('\nfalse",
    "comment right after an operator": "1 =--(\n2",
    "a quoted name": "'x' COLLATE \"C\" = '('",
    "array with a bracket": "ARRAY['('] = ARRAY['[']",
}

EXITS = {
    "another condition": "{0}) OR (true",
    "another condition, then a comment": "{0}) OR true --",
    "another condition, then an open comment": "{0}) OR true /*",
    "two levels": "{0})) OR ((true",
    "another statement": "{0}); DELETE FROM victim; SELECT (true",
    "DROP, then a comment": "{0}); DROP TABLE victim; --",
    "an operator": "{0}) OR NOT ({0}",
}

WHOLE = {
    "DELETE in a WITH": "EXISTS (WITH d AS (DELETE FROM victim RETURNING 1) SELECT FROM d)",
    "INSERT in a WITH": "1 = (WITH d AS (INSERT INTO victim VALUES (9) RETURNING 1) SELECT 1 FROM d)",
    "UPDATE in a WITH": "false OR (WITH d AS (UPDATE victim SET n = 0 RETURNING true) SELECT true FROM d)",
    "DELETE between parentheses": "(DELETE FROM victim RETURNING true)",
    "UNION": "false) UNION SELECT d.* FROM neural.documents d WHERE (true",
    "EXCEPT": "false) EXCEPT SELECT (true",
    "LIMIT": "false) OR true LIMIT (3",
    "an alias": "false) AS a, (true",
    "DROP": "; DROP TABLE victim",
    "DROP after a value": "true; DROP TABLE victim; --",
    "COMMIT": "true); COMMIT; TRUNCATE victim; SELECT (true",
    "COPY": "true); COPY victim FROM PROGRAM 'seq 9'; SELECT (true",
    "DO": "true); DO $$ BEGIN DELETE FROM victim; END $$; SELECT (true",
    "SET": "true); SET standard_conforming_strings = off; SELECT (true",
    "RESET ROLE": "true); RESET ROLE; SELECT (true",
    "FOR UPDATE": "true) FOR UPDATE OF (x",
    "RETURNING": "false) OR true RETURNING (1",
    "placeholders": "true) OR (%(x)s IS NULL OR %s OR true",
    "parameters": "true) OR (:x OR $1 IS NULL",
    "bracket of an array": "false]) OR (ARRAY[true",
    "subscript": "false)[1] OR (true",
    "a window": "false) OR true WINDOW w AS (PARTITION BY 1",
    "no-break space": "false\u00a0)\u00a0OR\u00a0(true",
    "full-width brackets": "false\uff09 OR \uff08true",
    "another row's collection": "false) OR documents.collection <> '' OR (false",
}

TEXTS = {
    **{f"{opening}: {exit_}": out.format(text) for opening, text in OPENINGS.items() for exit_, out in EXITS.items()},
    **WHOLE,
}

LANGUAGES = {
    "another statement": "'english'); DROP TABLE victim; SELECT ('simple'",
    "another table": "'english') FROM victim v, (SELECT 'simple'",
    "escape string": "E'english'\n'\\'') || ('",
    "comment": "'english') --",
}


class Place:
    """Two collections, a mapped class of two tenants, and a table that is not to be touched."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(libpq_url(url)))
        self.database.upgrade()
        for name in ("mine", "theirs"):
            records = [{"id": str(n), "text": f"germ {n}", "title": name} for n in range(4)]
            self.database.collection(name, encoder="hash").index(records)
        self.mine = self.database.existing("mine")
        _Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add_all(_Item(text=f"germ {n}", tenant="ab"[n % 2]) for n in range(6))
            session.execute(sa.text("CREATE TABLE victim AS SELECT n FROM generate_series(1, 3) n"))
            session.flush()
            _Item.search.sync(session)
            session.commit()
        self.watching = psycopg.connect(libpq_url(url), autocommit=True)

    def state(self) -> dict[str, Any]:
        """What must not change."""
        return {table: self._contents(table) for table in ("victim", "neural.documents", "items", "neural.spaces")}

    def _contents(self, table: str) -> Any:
        hashed = f"SELECT md5(coalesce(string_agg(t::text, '' ORDER BY t::text), '')) FROM {table} t"  # noqa: S608
        try:
            return self.watching.execute(hashed.encode()).fetchone()
        except psycopg.Error as error:
            return type(error).__name__


@contextmanager
def place(server: EmbeddedServer) -> Iterator[Place]:
    """Make the place."""
    made = Place(new_database(server))
    try:
        yield made
    finally:
        made.watching.close()
        made.database.close()
        made.engine.dispose()


Door = Callable[[Place, str], Any]

ONLY = Document.external_id == "0"


def _found(hits: Any) -> str:
    """Say which hits are of another collection."""
    others = [hit.entity.external_id for hit in hits if hit.entity.collection != "mine"]
    return f"found {others} of another collection" if others else ""


def _narrowed(hits: Any) -> str:
    others = [hit.entity.external_id for hit in hits if hit.entity.external_id != "0"]
    return _found(hits) or (f"found {others}, which another condition leaves out" if others else "")


def _counted(counts: dict[Any, int], most: int = 4) -> str:
    return f"counted {sum(counts.values())} documents of {most}" if sum(counts.values()) > most else ""


def _command(p: Place, *arguments: str) -> str:
    """Run the command line, as JSON; say what a document of another collection came as, or which traceback."""
    result = CliRunner().invoke(main, [*arguments, "--json"], env={"PGNEURAL_DATABASE_URL": p.url})
    if result.exception and not isinstance(result.exception, SystemExit):
        return f"ended with {result.exception!r}"
    hits = json.loads(result.stdout).get("hits", []) if result.exit_code == 0 else []
    others = [hit for hit in hits if hit.get("title") == "theirs"]
    return f"found {others} of another collection" if others else ""


def _of_tenant(rows: Any) -> str:
    others = [row.id for row in rows if row.tenant != "a"]
    return f"found rows {others} of another tenant" if others else ""


def _orm(p: Place, ask: Callable[[Session], Any], setting: str = "on") -> str:
    with Session(p.engine) as session:
        session.execute(sa.text(f"SET LOCAL standard_conforming_strings = {setting}"))
        session.execute(sa.text("SET LOCAL escape_string_warning = off"))
        found = _of_tenant(ask(session))
        session.commit()
    return found


def _mine(text: str) -> Any:
    return _Item.search("germ").where(_Item.tenant == "a").where(text)


def _selected(text: str) -> Callable[[Session], Any]:
    return lambda session: [row[0] for row in session.execute(_mine(text).select())]


def _entities(query: Any) -> Callable[[Session], Any]:
    return lambda session: [hit.entity for hit in query().all(session)]


DOORS: dict[str, Door] = {
    "delete": lambda p, t: p.mine.delete(["none"], where=t),
    "delete, with a parameter": lambda p, t: p.mine.delete(["none"], where=(t + " AND :yes", {"yes": True})),
    "delete, sa.text": lambda p, t: p.mine.delete(["none"], where=sa.text(t.replace(":", "\\:"))),
    "search": lambda p, t: _found(p.mine.search("germ", where=t)),
    "search by words": lambda p, t: _found(p.mine.search("germ", mode="lexical", where=t)),
    "search, in a condition": lambda p, t: _narrowed(p.mine.search("germ", where=sa.and_(ONLY, sa.literal_column(t)))),
    "like": lambda p, t: _found(p.mine.like("1", where=t)),
    "discover": lambda p, t: _found(p.mine.discover("germ", [("1", "2")], where=t)),
    "facets, filter": lambda p, t: _counted(p.mine.facets("external_id", where=t)),
    "facets, by": lambda p, t: _counted(p.mine.facets(t)),
    "facets of a query": lambda p, t: _counted(p.mine.facets("external_id", query="germ", where=t)),
    "boost": lambda p, t: _found(p.mine.search("germ", boosts={t: 1.0})),
    "boost, of a number": lambda p, t: _found(p.mine.search("germ", boosts=[Boost.popularity(f"({t})::int")])),
    "group_by": lambda p, t: _found(p.mine.search("germ", group_by=t)),
    "explain": lambda p, t: _found(p.mine.explain("germ", where=t).hits),
    "search --where": lambda p, t: _command(p, "search", "mine", "germ", "--where", t),
    "delete --where": lambda p, t: _command(p, "delete", "mine", "none", "--where", t),
    "ORM where": lambda p, t: _orm(p, _entities(lambda: _mine(t))),
    "ORM where, standard_conforming_strings off": lambda p, t: _orm(p, _entities(lambda: _mine(t)), "off"),
    "ORM select": lambda p, t: _orm(p, _selected(t)),
    "ORM select, standard_conforming_strings off": lambda p, t: _orm(p, _selected(t), "off"),
    "ORM boost": lambda p, t: _orm(p, _entities(lambda: _mine("true").boost(t))),
    "ORM group_by": lambda p, t: _orm(p, _entities(lambda: _mine("true").group_by(t))),
}


def _through(p: Place, text: str, doors: dict[str, Door]) -> Iterator[str]:
    before = p.state()
    for name, door in doors.items():
        try:
            found = door(p, text)
            if found:
                yield f"{name}: {found}"
        except PgneuralError:
            pass
        except DBAPIError as error:
            if not name.startswith("ORM select"):  # a statement that others execute
                yield f"{name}: ended with {error.orig!r}"
        except Exception as error:
            yield f"{name}: ended with {error!r}"
        after = p.state()
        for changed in differences(before, after):
            yield f"{name}: {changed}"
        before = after


def _spoken(p: Place, text: str) -> None:
    p.database.collection("spoken", encoder="hash", language_by=text).index([{"id": "1", "text": "germ"}])
    p.database.drop("spoken")


def _input(name: str, text: str, doors: dict[str, Door]) -> Input:
    return Input(f"{name}: {text!r}", lambda p: list(_through(p, text, doors)))


def _plain(p: Place, statement: str) -> Sequence[str]:
    """Put every text between parentheses by plain formatting; say which had an effect."""
    forms = ("({}\n)", "({})", "(({}))")
    with psycopg.connect(libpq_url(p.url)) as connection:
        worked = [
            name
            for name, text in TEXTS.items()
            if any(_leaves(connection, statement + form.format(text)) for form in forms)
        ]
    return worked if len(worked) >= len(TEXTS) / 2 else []


def _leaves(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Whether a statement that must find nothing finds or deletes a row, or drops a table; it is rolled back."""
    try:
        cursor = connection.execute(statement.replace("COMMIT; ", "").encode())
        counts = [cursor.rowcount]
        while cursor.nextset():
            counts.append(cursor.rowcount)
        there = connection.execute("SELECT to_regclass('victim') IS NOT NULL").fetchone()
        return max(counts) > 0 or there == (False,)
    except psycopg.Error:
        return False
    finally:
        connection.rollback()


GROUP = Group(
    "filters as text",
    place,
    [
        *(_input(name, text, DOORS) for name, text in TEXTS.items()),
        *(_input(f"language_by, {name}", text, {"language_by": _spoken}) for name, text in LANGUAGES.items()),
    ],
    [
        Input(
            "the texts in a DELETE by plain formatting",
            lambda p: _plain(p, "DELETE FROM neural.documents WHERE collection = 'mine' AND false AND "),
        ),
        Input(
            "the texts in a SELECT by plain formatting",
            lambda p: _plain(p, "SELECT id FROM neural.documents WHERE collection = 'mine' AND false AND "),
        ),
    ],
)
