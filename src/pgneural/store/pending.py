"""Rows of a source that changed: reading what is searchable of them, and storing what was made of it.

Reading takes no locks, so a row may change while it is encoded. Storing first locks the rows and what is pending of
them, in the order in which a writer does, and leaves alone what has another version by then: it stays pending.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.util import await_only

from pgneural.errors import EncoderMismatch
from pgneural.store.engine import quoted, quoted_table
from pgneural.store.schema import Space
from pgneural.store.vectors import Storage
from pgneural.types import Chunk, Vector

TEXT, INTEGER, BYTEA = 25, 23, 17
"""The numbers of PostgreSQL's types."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A pending row.

    Attributes:
        key: The row's primary key, as JSON.
        version: Another one for every change.
        values: The primary key; None where the row is gone.
        title: What is put before each of its chunks.
        content: What is cut into chunks.
        source_hash: That of its stored chunks, None if there are none.
    """

    key: str
    version: int
    values: tuple[Any, ...] | None
    title: str
    content: str
    source_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of a pending row: its chunks and their vectors; without chunks where the stored ones are right."""

    row: Changed
    source_hash: bytes
    chunks: Sequence[Chunk] | None = None
    vectors: Vector | None = None


class Kept:
    """The tables that are made of a source, and the statements about them.

    Args:
        space: The space of the search.
        chunks: Its chunk table, if the vectors are there.
        terms: Its terms table.
    """

    def __init__(self, space: Space, chunks: sa.Table | None, terms: sa.Table) -> None:
        self.space, self.chunks, self.terms = space, chunks, terms
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        types = {name: terms.c[name].type.compile(dialect) for name in self._keys(terms)}
        self._names = {
            "reads": str(space.reads),
            "source": space.source,
            "terms": quoted_table(terms.name, terms.schema),
            "chunks": quoted_table(chunks.name, chunks.schema) if chunks is not None else "",
            "keys": ", ".join(map(quoted, types)),
            "read_keys": ", ".join(f"r.{quoted(name)}" for name in types),
            "of_read": _same("r", types, quoted),
            "of_kept": _same("t", types, quoted),
            "of_source": _same("s", types, lambda name: quoted(name.removeprefix("source_"))),
        }

    @staticmethod
    def _keys(terms: sa.Table) -> list[str]:
        return [column.name for column in terms.primary_key]

    def sql(self, statement: str) -> sa.TextClause:
        """Fill in the names of the tables and of their keys."""
        filled = re.sub(r"\{(\w+)\}", lambda found: self._names[found[1]].replace(":", "\\:"), statement)
        return sa.text(filled)

    def read(self, connection: sa.Connection, rows: int, *, own: bool = False) -> list[Changed]:
        """Return pending rows, those that changed first before the others.

        Args:
            connection: Where.
            rows: How many at most.
            own: Only those that the transaction itself has changed.
        """
        reading = self.sql(_READ if self.chunks is not None else _READ_WORDS)
        with _planned_anew(connection):
            found = connection.execute(reading, {"space": self.space.id, "rows": rows, "own": own}).all()
        return [
            Changed(key, version, tuple(values) if there else None, title or "", content or "", hash_)
            for key, version, there, title, content, hash_, *values in found
        ]

    def known(self, connection: sa.Connection, rows: Sequence[Changed]) -> dict[bytes, Vector]:
        """Return the vectors of these rows' chunks, by the hash of what the encoder read."""
        storage = Storage(self.space.storage)
        found = connection.execute(self.sql(_KNOWN), {"keys": _json(row.key for row in rows)})
        return {bytes(hash_): storage.parse(_numbers(vector)) for hash_, vector in found}

    def store(self, connection: sa.Connection, batch: Sequence[Made]) -> int:
        """Store what was made of rows that have not changed meanwhile; return how many these are."""
        unchanged = self._locked(connection, [made.row for made in batch])
        current = [made for made in batch if made.row.key in unchanged]
        space = {"space": self.space.id}
        keys = {**space, "keys": _json(made.row.key for made in current)}
        rechunked = [made for made in current if made.chunks is not None and unchanged[made.row.key]]
        with _planned_anew(connection):
            if self.chunks is not None and rechunked:
                connection.execute(self.sql(_DELETE_CHUNKS), {"keys": _json(made.row.key for made in rechunked)})
            connection.execute(self.sql(_DELETE_TERMS), keys)
        if rechunked:
            self._insert(connection, rechunked)
        connection.execute(self.sql(_ESTIMATE), keys)
        connection.execute(self.sql(_INSERT_TERMS), keys)
        connection.execute(self.sql(_DONE), keys)
        return len(current)

    def claim(self, connection: sa.Connection, encoder: str, revision: str) -> None:
        """Make sure that the vectors of the space are of one revision of its encoder: the first that stores any.

        Raises:
            EncoderMismatch: They are of another.
        """
        connection.execute(_CLAIM, {"space": self.space.id, "revision": revision})
        found = connection.scalar(sa.select(Space.revision).where(Space.id == self.space.id))
        if found != revision:
            raise EncoderMismatch(
                f"the vectors of {self.space.source}.{self.space.attribute} were made by {self.space.encoder} revision "
                f"{found}, but this is {encoder} revision {revision}; use the same model files, or make the search anew"
            )

    def _types(self, connection: sa.Connection, driver: Any) -> list[int]:
        """Return the types of a row that is copied; what psycopg does not know is sent as the text that it is."""
        keys = {row[0]: row[1] for row in connection.execute(_KEY_TYPES, {"terms": self._names["terms"]})}
        oids = [keys[name] for name in self._keys(self.terms)]
        return [
            *(oid if _has_binary_form(driver, oid) else TEXT for oid in oids),
            INTEGER,
            TEXT,
            BYTEA,
            BYTEA,
            BYTEA,
            BYTEA,
        ]

    def analyze(self, connection: sa.Connection) -> None:
        """Make the statistics of the tables anew; a role that may not gets a warning from the server."""
        for table in filter(None, (self._names["chunks"], self._names["terms"])):
            connection.execute(sa.text(f"ANALYZE {table}"))

    def _locked(self, connection: sa.Connection, rows: Sequence[Changed]) -> dict[str, bool]:
        """Lock rows, then what is pending of them; return those of the same version, and whether they exist."""
        keys = _json(row.key for row in rows)
        existing = set(connection.scalars(self.sql(_LOCK_ROWS), {"keys": keys}))
        versions = json.dumps([{"key": json.loads(row.key), "version": row.version} for row in rows])
        same = connection.scalars(self.sql(_LOCK_PENDING), {"space": self.space.id, "versions": versions})
        return {key: key in existing for key in same}

    def _insert(self, connection: sa.Connection, batch: Sequence[Made]) -> None:
        columns = ["ordinal", "text", "locator", "hash", "source_hash", "embedding"]
        names = ", ".join([self._names["keys"], *columns])
        statement = f"COPY {self._names['chunks']} ({names}) FROM STDIN (FORMAT binary)"
        driver: Any = connection.connection.driver_connection
        rows = list(_copied(batch, Storage(self.space.storage)))
        if isinstance(driver, psycopg.Connection):
            _copy(driver, statement, self._types(connection, driver), rows)
        elif isinstance(driver, psycopg.AsyncConnection):
            await_only(_copy_async(driver, statement, self._types(connection, driver), rows))
        else:
            assert self.chunks is not None
            connection.execute(sa.insert(self.chunks), list(_inserted(batch, self._keys(self.terms))))


@contextlib.contextmanager
def _planned_anew(connection: sa.Connection) -> Iterator[None]:
    """Have statements planned for the tables as they are.

    A plan that was kept from when they were empty would read them from end to end for every row.
    """
    before = connection.scalar(sa.text("SELECT current_setting('plan_cache_mode')"))
    setting = sa.text("SELECT set_config('plan_cache_mode', :mode, true)")
    connection.execute(setting, {"mode": "force_custom_plan"})
    yield
    connection.execute(setting, {"mode": before})


def _same(alias: str, types: dict[str, str], quote: Any) -> str:
    """Return the condition that a row has the key of ``k.key``, a JSON array."""
    return " AND ".join(
        f"{alias}.{quote(name)} = (k.key ->> {place})::{type_}" for place, (name, type_) in enumerate(types.items())
    )


def _json(keys: Iterable[str]) -> str:
    return "[" + ",".join(keys) + "]"


def _numbers(vector: Any) -> Any:
    """Return a vector as numbers, whatever the connection makes of it."""
    return json.loads(vector) if isinstance(vector, str) and vector.startswith("[") else vector


def _has_binary_form(driver: Any, oid: int) -> bool:
    try:
        return bool(driver.adapters.get_dumper_by_oid(oid, psycopg.pq.Format.BINARY))
    except psycopg.ProgrammingError:
        return False


def _copied(batch: Sequence[Made], storage: Storage) -> Iterable[tuple[Any, ...]]:
    for made in batch:
        if not made.chunks or made.vectors is None or made.row.values is None:
            continue
        for ordinal, (chunk, vector) in enumerate(zip(made.chunks, storage.to_binary(made.vectors), strict=True)):
            locator = b"\x01" + json.dumps(chunk.locator).encode()  # the binary form of jsonb: a version, then the text
            yield (*made.row.values, ordinal, chunk.text, locator, chunk.hash, made.source_hash, vector)


def _inserted(batch: Sequence[Made], keys: Sequence[str]) -> Iterable[dict[str, Any]]:
    for made in batch:
        for ordinal, chunk in enumerate(made.chunks or ()):
            assert made.vectors is not None
            yield {
                **dict(zip(keys, made.row.values or (), strict=True)),
                "ordinal": ordinal,
                "text": chunk.text,
                "locator": chunk.locator,
                "hash": chunk.hash,
                "source_hash": made.source_hash,
                "embedding": made.vectors[ordinal],
            }


def _copy(driver: psycopg.Connection[Any], statement: str, types: Sequence[int], rows: Sequence[Any]) -> None:
    with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


async def _copy_async(
    driver: psycopg.AsyncConnection[Any], statement: str, types: Sequence[int], rows: Sequence[Any]
) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            await copy.write_row(row)


_KEY_TYPES = sa.text("""
SELECT a.attname, CASE t.typbasetype WHEN 0 THEN t.oid ELSE t.typbasetype END::integer
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = to_regclass(:terms) AND a.attnum > 0""")

_READ = """
WITH claimed AS MATERIALIZED (
    SELECT key, version FROM neural.pending
     WHERE space_id = :space AND (NOT :own OR changed_by = pg_current_xact_id_if_assigned()::text::bigint)
     ORDER BY changed_at, key LIMIT :rows
)
SELECT k.key::text, k.version, r.there, r.title::text, r.content::text, t.source_hash, {read_keys}
  FROM claimed k
  LEFT JOIN LATERAL (SELECT true AS there, r.* FROM ({reads}) r WHERE {of_read} OFFSET 0) r ON true
  LEFT JOIN {chunks} t ON t.ordinal = 0 AND {of_kept}"""

_READ_WORDS = """
WITH claimed AS MATERIALIZED (
    SELECT key, version FROM neural.pending
     WHERE space_id = :space AND (NOT :own OR changed_by = pg_current_xact_id_if_assigned()::text::bigint)
     ORDER BY changed_at, key LIMIT :rows
)
SELECT k.key::text, k.version, r.there, r.title::text, r.content::text, NULL::bytea, {read_keys}
  FROM claimed k
  LEFT JOIN LATERAL (SELECT true AS there, r.* FROM ({reads}) r WHERE {of_read} OFFSET 0) r ON true"""

_KEYS = "jsonb_array_elements((:keys)::jsonb) AS k(key)"

_KNOWN = f"SELECT t.hash, t.embedding FROM {_KEYS} JOIN {{chunks}} t ON {{of_kept}}"  # noqa: S608

_LOCK_ROWS = f"""
SELECT k.key::text FROM {_KEYS} JOIN {{source}} s ON {{of_source}} ORDER BY k.key FOR KEY SHARE OF s"""  # noqa: S608

_LOCK_PENDING = """
SELECT p.key::text
  FROM jsonb_to_recordset((:versions)::jsonb) AS seen(key jsonb, version bigint)
  JOIN neural.pending p ON p.space_id = :space AND p.key = seen.key AND p.version = seen.version
 ORDER BY p.key FOR UPDATE OF p"""

_DELETE_CHUNKS = f"DELETE FROM {{chunks}} t USING {_KEYS} WHERE {{of_kept}}"  # noqa: S608

_DELETE_TERMS = f"DELETE FROM {{terms}} t USING {_KEYS} WHERE {{of_kept}}"  # noqa: S608

# who comes second waits here, and then reads what the first has claimed
_CLAIM = sa.text("UPDATE neural.spaces SET revision = :revision WHERE id = :space AND revision = ''")

# no words yet: the mean length is that of the first rows
_ESTIMATE = f"""
UPDATE neural.spaces s SET mean_length = greatest(sampled.mean, 1)
  FROM (SELECT avg((SELECT sum(frequency) FROM neural.term_frequencies(l, s.title_boost))) AS mean
          FROM neural.spaces s,
               LATERAL (SELECT r.title::text, r.content::text FROM {_KEYS}
                          JOIN LATERAL (SELECT * FROM ({{reads}}) r WHERE {{of_read}} OFFSET 0) r ON true) d,
               LATERAL neural.lexemes(s.language, d.title, d.content) l
         WHERE s.id = :space AND s.mean_length IS NULL) sampled
 WHERE s.id = :space AND s.mean_length IS NULL AND sampled.mean IS NOT NULL"""  # noqa: S608

_INSERT_TERMS = f"""
WITH spoken AS (
    SELECT {{read_keys}}, r.title::text, r.content::text, s.title_boost, s.mean_length,
           coalesce(neural.text_search_configuration(nullif(r.language::text, '')), s.language) AS language
      FROM {_KEYS}
      JOIN LATERAL (SELECT * FROM ({{reads}}) r WHERE {{of_read}} OFFSET 0) r ON true
      JOIN neural.spaces s ON s.id = :space
)
INSERT INTO {{terms}} ({{keys}}, language, lexemes, length, weights)
SELECT {{read_keys}}, r.language, l.lexemes, coalesce(f.length, 0),
       neural.bm25_weights(l.lexemes, r.language, r.title_boost, coalesce(r.mean_length, 1))
  FROM spoken r
 CROSS JOIN LATERAL (SELECT neural.lexemes(r.language, r.title, r.content) AS lexemes OFFSET 0) l
 CROSS JOIN LATERAL (SELECT sum(frequency) AS length FROM neural.term_frequencies(l.lexemes, r.title_boost)) f"""  # noqa: S608

_DONE = f"DELETE FROM neural.pending p USING {_KEYS} WHERE p.space_id = :space AND p.key = k.key"  # noqa: S608
