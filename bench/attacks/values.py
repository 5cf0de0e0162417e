"""Values and names that nobody expects."""

# ruff: noqa: E501 — a table of values is read by the line

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.exc import DataError

from bench.attacks import Group, Input, differences, execute, new_database
from pgneural import Boost, Database, Document
from pgneural.cli import main
from pgneural.errors import PgneuralError
from pgneural.store.embedded import EmbeddedServer
from pgneural.store.engine import libpq_url
from pgneural.worker import Worker

DROP = "DROP TABLE victim"

NAMES = {
    "a quotation mark": f'x"; {DROP}; --',
    "an apostrophe": f"x'; {DROP}; --",
    "both": f"x'\"; {DROP}; --",
    "dollar quotes": f"x$$; {DROP}; $$",
    "a format": "%s %(x)s %I {0} {} :x",
    "a backslash": "x\\'; \\",
    "brackets": f"x); {DROP}; (",
    "a dot": "public.victim",
    "a NUL": "x\0y",
    "half of a pair": "x\ud800",
    "escapes of a terminal": "x\x1b]0;title\x07\x9b31m\u202e",
    "63 characters and more": "x" * 70,
    "only spaces": "  ",
    "newlines": f"x\n; {DROP}\r\n",
    "a name of ours": "victim",
}

QUERIES = {
    "a NUL": "fox\0", "half of a pair": "\ud800 fox", "1 MB of one word": "x" * 1_000_000, "1 MB of words": "fox " * 250_000,
    "40,000 words": " ".join(f"w{n}" for n in range(40_000)), "operators": "fox & | ! <-> ( ) :* 'x':A",
    "open quotation": '"fox', "only quotation marks": '"' * 1001, "minus signs": "-" * 5000, "stars": "* ** fox*** *",
    "placeholders": "%s %(x)s :x $1 {0}", "backslashes": "\\' \\\\ \\", "SQL": f"'; {DROP}; --",
    "right to left": "\u202efox\u2066", "combining marks": "e" + "\u0301" * 50_000, "only spaces": " \t\n\u3000",
    "5,000 exclusions": " ".join(f"-w{n}" for n in range(5_000)), "emoji": "🦊" * 10_000, "escapes": "\x1b[31m\x07",
    "unassigned": "\U000e0fff\ufffe\uffff", "a long phrase": '"' + "fox owl " * 20_000 + '"',
}  # fmt: skip

NUMBERS: dict[str, Any] = {
    "10**30": 10**30, "-1": -1, "NaN": math.nan, "infinity": math.inf, "a text": "1; " + DROP, "true": True,
    "a list": [1], "2**63": 2**63, "1e308": 1e308, "numpy NaN": np.float32("nan"), "minus infinity": -math.inf,
    "complex": 1j, "bytes": b"1", "a half": 0.5,
}  # fmt: skip

VECTORS: dict[str, Any] = {
    "NaN": [math.nan] * 256, "infinity": [math.inf] * 256, "1e40": [1e40] * 256, "nothing": [], "too long": [1.0] * 70_000,
    "texts": ["1"] * 256, "zeros": [0.0] * 256, "two rows": np.zeros((2, 256)), "None": [None] * 256,
    "the smallest": [1e-45] * 256,
}  # fmt: skip

HIDDEN = "\u202e\u2066"
"""Characters that change the direction of a text."""

OPTIONS = ("limit", "offset", "min_score", "max_distance", "diversity", "per_group")


class Place:
    """A collection, a table that is not to be touched, and a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.database = Database(url)
        self.database.upgrade()
        self.foxes = self.database.collection("foxes", encoder="hash")
        self.foxes.index([{"id": str(n), "text": f"fox {n}"} for n in range(3)])
        execute(url, "CREATE TABLE victim AS SELECT n FROM generate_series(1, 3) n")
        folder.mkdir()

    def state(self) -> dict[str, Any]:
        """What must not change."""
        found: dict[str, Any] = {}
        with psycopg.connect(self.url, autocommit=True) as connection:
            for what, query in KEPT.items():
                try:
                    found[what] = connection.execute(query.encode()).fetchall()
                except psycopg.Error as error:
                    found[what] = type(error).__name__
        return found


KEPT = {
    "the victim": "SELECT n FROM victim ORDER BY n",
    "the collection": "SELECT external_id, content FROM neural.documents WHERE collection = 'foxes' ORDER BY 1",
    "its chunks": "SELECT count(*) FROM neural.foxes",
    "the other tables": "SELECT count(*) FROM pg_class WHERE relnamespace IN ('neural'::regnamespace, 'public'::regnamespace)",
}


@contextmanager
def place(server: EmbeddedServer) -> Iterator[Place]:
    """Make the place."""
    made = Place(libpq_url(new_database(server)), server.directory / "files")
    try:
        yield made
    finally:
        made.database.close()


EXPECTED = (PgneuralError, psycopg.DataError, DataError)
"""How something may be refused."""


def _tried(run: Callable[[Place], Any], p: Place) -> list[str]:
    before = p.state()
    effects: list[str] = []
    try:
        found = run(p)
        effects = [found] if isinstance(found, str) and found else []
    except EXPECTED:
        pass
    except Exception as error:
        if getattr(error, "sqlstate", None) != "PN400":  # what our own functions refuse
            effects.append(f"{type(error).__name__}: {str(error)[:120]!r}")
    return effects + list(differences(before, p.state()))


def given(run: Callable[..., Any], *values: Any) -> Callable[[Place], Any]:
    """Return what is to be tried with these values."""
    return lambda p: run(p, *values)


def _queries() -> Iterator[tuple[str, Callable[[Place], Any]]]:
    for (name, query), mode in itertools.product(QUERIES.items(), ("lexical", "hybrid")):
        yield f"a {mode} query: {name}", given(lambda p, q, m: p.foxes.search(q, mode=m), query, mode)
    for name, query in QUERIES.items():
        yield f"facets of a query: {name}", given(lambda p, q: p.foxes.facets("external_id", query=q), query)
    weighed: dict[str, Mapping[Any, Any]] = {
        "NaN": {"fox": math.nan}, "a text": {"fox": DROP}, "nothing": {}, "zero": {"fox": 0}, "1e308": {"a": 1e308, "b": 1e308},
    }  # fmt: skip
    for name, weights in weighed.items():
        yield f"texts with weights: {name}", given(lambda p, g: p.foxes.search(g), weights)
    for name, vector in VECTORS.items():
        yield f"a vector: {name}", given(lambda p, v: p.foxes.search(np.asarray(v) if len(v) > 1000 else v), vector)


def _numbers() -> Iterator[tuple[str, Callable[[Place], Any]]]:
    for option, (name, value) in itertools.product(OPTIONS, NUMBERS.items()):
        options = {option: value, **({"group_by": "external_id"} if option == "per_group" else {})}
        yield f"{option} is {name}", given(lambda p, g: p.foxes.search("fox", **g), options)
    for name, value in NUMBERS.items():
        yield (
            f"the weight of a boost is {name}",
            given(lambda p, v: p.foxes.search("fox", boosts=[Boost("1", v)]), value),
        )
        yield f"the limit of facets is {name}", given(lambda p, v: p.foxes.facets("external_id", limit=v), value)
        yield f"title_boost is {name}", given(lambda p, v: _made(p, "numbered", title_boost=v), value)
    for name, value in (*NUMBERS.items(), *NAMES.items()):
        where = ("external_id = :x", {"x": value})
        yield f"a parameter is {name}", given(lambda p, w: p.foxes.search("fox", where=w), where)
        compared = Document.external_id == value
        yield f"a value of a condition is {name}", given(lambda p, w: p.foxes.search("fox", where=w), compared)
    many = [str(n) for n in range(100_000)]
    yield "100,000 values", lambda p: p.foxes.search("fox", where=Document.external_id.in_(many))
    yield "100,000 ids", lambda p: p.foxes.delete([f"none {n}" for n in range(100_000)])


def _made(p: Place, name: str, **options: Any) -> None:
    """Make a collection, use it and drop it."""
    try:
        made = p.database.collection(name, encoder="hash", **options)
        made.index([{"id": "1", "text": "fox", "title": "owl"}])
        assert len(made.search("fox")) == 1, "its document is not found"
        made.delete("1")
    finally:
        with suppress(*EXPECTED):
            p.database.drop(name)


def _indexed(p: Place, record: dict[str, Any]) -> None:
    """Index one record, find it, and delete it."""
    made = p.database.collection("records", encoder="hash")
    try:
        made.index([record])
        for hit in made.search("fox"):
            made.like(hit.entity.external_id)
            made.delete(hit.entity.external_id)
    finally:
        p.database.drop("records")


def _names() -> Iterator[tuple[str, Callable[[Place], Any]]]:
    for name, text in NAMES.items():
        if text != "victim":
            yield f"a collection's name has {name}", given(lambda p, t: _made(p, t), text)
        yield f"a collection that is not there has {name}", given(lambda p, t: p.database.existing(t), text)
        yield f"a language has {name}", given(lambda p, t: _made(p, "spoken", language=t), text)
        yield f"an encoder's name has {name}", given(lambda p, t: p.database.collection("c", encoder=t), text)
        yield f"a space's name has {name}", given(lambda p, t: _spaced(p, t), text)
        yield f"an id has {name}", given(lambda p, t: _indexed(p, {"id": t, "text": "fox"}), text)
        yield f"ids asked for have {name}", given(lambda p, t: (p.foxes.delete(t), p.foxes.like(t)), text)
        yield (
            f"metadata has {name}",
            given(lambda p, t: _indexed(p, {"id": "1", "text": "fox", "metadata": {t: t}}), text),
        )
        yield f"a title has {name}", given(lambda p, t: _indexed(p, {"id": "1", "text": "fox", "title": t}), text)
        yield f"a table and its columns have {name}", given(lambda p, t: _watched(p, t), text)
        yield f"a search is named {name}", given(lambda p, t: p.database.spaces(t), text)
        yield f"the command line gets {name}", given(lambda p, t: _command(p, t), text)
        yield f"a file's name has {name}", given(lambda p, t: _file(p, t), text)


def _spaced(p: Place, name: str) -> None:
    p.database.create_space("foxes", name, encoder="hash", dimensions=64)
    p.database.drop_space("foxes", name)


def _watched(p: Place, name: str) -> str:
    """Make a table of this name with a search, write, have a worker work, and drop both."""
    if "\0" in name or "\ud800" in name or name == "victim":
        return ""
    named = psycopg.sql.Identifier(name[:50])
    with psycopg.connect(p.url, autocommit=True) as connection:

        def run(statement: str, *values: Any) -> Any:
            return connection.execute(psycopg.sql.SQL(statement).format(named), values or None)

        run("CREATE SCHEMA {}")
        run("CREATE TABLE {0}.{0} ({0} text PRIMARY KEY, body text)")
        try:
            space = "SELECT neural.watch((quote_ident(%s) || '.' || quote_ident(%s))::regclass, ARRAY['body', %s], %s, 'hash')"
            connection.execute(space.encode(), [name[:50], name[:50], name[:50], name[:10]])
            value = psycopg.sql.Literal(name)  # no parameter: psycopg would look for more of them in the name
            connection.execute(psycopg.sql.SQL("INSERT INTO {0}.{0} VALUES ({1}, 'fox')").format(named, value))
            worker = Worker(p.url, concurrency=1, as_superuser=True)
            worker.run(once=True)
            failed = connection.execute("SELECT error FROM neural.failed").fetchall()
            connection.execute(
                b"SELECT neural.unwatch((quote_ident(%s) || '.' || quote_ident(%s))::regclass, %s)",
                [name[:50], name[:50], name[:10]],
            )
            return f"the worker said {worker.problems or failed}" if worker.problems or failed else ""
        finally:
            run("DROP SCHEMA {} CASCADE")
            connection.execute("DELETE FROM neural.spaces WHERE source NOT LIKE 'neural.%'")


def _printed(p: Place, *arguments: str) -> str:
    """Run the command line; say which traceback it ended with, or which control character it printed."""
    result = CliRunner().invoke(main, arguments, env={"PGNEURAL_DATABASE_URL": p.url})
    if result.exception and not isinstance(result.exception, SystemExit):
        return f"{arguments[0]} ended with {type(result.exception).__name__}: {str(result.exception)[:120]!r}"
    written = [
        c for c in result.output if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c in "\u202e\u2066"
    ]
    return f"{arguments[0]} printed {written[:3]!r}" if written else ""


def _command(p: Place, text: str) -> str:
    found = [
        _printed(p, "search", "--", "foxes", text),
        _printed(p, "search", "--", text, "fox"),
        _printed(p, "like", "--", "foxes", text),
        _printed(p, "delete", "--", "foxes", text),
        _printed(p, "facets", "--", "foxes", text),
        _printed(p, "search", "foxes", "fox", "--where", "external_id = :x", "--param", f"x={text}"),
        _printed(p, "space", "list", "--", text),
    ]
    return "; ".join(filter(None, found))


def _file(p: Place, name: str) -> str:
    """Index a file of this name, and print what is found."""
    if "\0" in name:
        return _printed(p, "index", "--collection", "filed", "--encoder", "hash", "--", name)
    folder = p.folder / "of one"
    folder.mkdir(exist_ok=True)
    try:
        encoded = name.replace("/", "_").encode("utf-8", "surrogatepass")
        Path(str(folder).encode().decode() + "/" + encoded.decode("utf-8", "surrogateescape") + ".txt").write_text(
            "a fox"
        )
        arguments = ("index", str(folder), "--collection", "filed", "--encoder", "hash")
        found = [_printed(p, *arguments), _printed(p, "search", "filed", "fox"), _printed(p, "facets", "filed", "uri")]
        return "; ".join(filter(None, found))
    finally:
        shutil.rmtree(folder)
        with suppress(*EXPECTED):
            p.database.drop("filed")


def _formatted(p: Place) -> Sequence[str]:
    """Make a table of a hostile name by plain formatting."""
    before = p.state()
    with psycopg.connect(p.url) as connection:
        connection.execute(f'SELECT 1 AS "{NAMES["a quotation mark"]}'.encode())
    effects = list(differences(before, p.state()))
    execute(p.url, "CREATE TABLE IF NOT EXISTS victim AS SELECT n FROM generate_series(1, 3) n")
    return effects


def _raw(p: Place) -> Sequence[str]:
    """Send half of a pair of surrogates by the driver alone."""

    def send(p: Place) -> None:
        engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(p.url))
        try:
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT :x"), {"x": NAMES["half of a pair"]})
        finally:
            engine.dispose()

    return _tried(send, p)


GROUP = Group(
    "values and names",
    place,
    [Input(name, partial(_tried, run)) for part in (_queries, _numbers, _names) for name, run in part()],
    [
        Input("a hostile name between quotation marks by plain formatting", _formatted),
        Input("half of a pair of surrogates, by the driver alone", _raw),
    ],
)
