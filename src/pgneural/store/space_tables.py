"""The tables that are made of a source: reading what is searchable of its rows, and storing what was made of it.

Reading takes no locks, so a row may change while it is encoded. Who stores what a worker has claimed first locks
the claims, and leaves alone what is no longer its own or has another version by then: that stays pending.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from pgneural.errors import EncoderMismatch
from pgneural.store.copying import BYTEA, INTEGER, TEXT, copies, copy, has_binary_form
from pgneural.store.engine import quoted, quoted_table
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import extra_spaces
from pgneural.store.vectors import Storage
from pgneural.types import Chunk, Content, Modality, Vector, seconds_of

READ_BYTES = 8_000_000
"""The text that is read at a time: rows beyond wait, so that memory is bounded whatever their size."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row that changed.

    Attributes:
        key: The row's primary key, as JSON.
        values: The primary key; None where the row is gone.
        body: What it is found by.
        source_hash: That of its stored chunks, None if there are none.
    """

    key: str
    values: tuple[Any, ...] | None
    body: Content
    source_hash: bytes | None


class ExtraVector(NamedTuple):
    """A sparse vector, or the vectors of the tokens, of one chunk.

    Attributes:
        key: The key of its row, as JSON.
        ordinal: The place of the chunk in the row.
        hash: That of the chunk.
        written: The vector, as PostgreSQL reads it.
    """

    key: str
    ordinal: int
    hash: bytes
    written: str


@dataclass(slots=True)
class EncodedRow:
    """What was made of a row.

    Attributes:
        source: The row.
        source_hash: That of its chunks.
        chunks: Its chunks; None where the stored ones are right.
        vectors: Theirs, shape (n, d).
        precomputed: Whether the vectors came with the row.
        extra: Their extra vectors, by kind, and those that stored chunks lack.
    """

    source: SourceRow
    source_hash: bytes
    chunks: Sequence[Chunk] | None = None
    vectors: Vector | None = None
    precomputed: bool = False
    extra: dict[str, list[ExtraVector]] = field(default_factory=dict)


class SpaceTables:
    """The tables of a space, and the statements about them; made by `of`.

    Attributes:
        space: The space.
        chunks: Its chunk table; None where the vectors are in a column of the source.
        terms: Its terms table.
        extra: The spaces of extra vectors of its chunks, by kind.
        schema: Of the tables.
        keys: The columns of their key.
        quoted_keys: The same, quoted.
    """

    def __init__(
        self,
        space: Space,
        chunks: str | None,
        terms: str,
        types: dict[str, tuple[str, int]],
        extra: Mapping[str, Space],
        schema: str,
    ) -> None:
        self.space, self.chunks, self.terms, self.extra, self.schema = space, chunks, terms, extra, schema
        self.quoted_keys = list(map(quoted, types))
        self._oids = [oid for _, oid in types.values()]
        self._texts: bool | None = None
        self.keys = list(types)
        self._names = {
            "reads": str(space.reads),
            "source": space.source,
            "terms": terms,
            "chunks": chunks or "",
            "keys": ", ".join(map(quoted, types)),
            "typed_keys": ", ".join(
                f"(r.key::jsonb ->> {place})::{type_}" for place, (type_, _) in enumerate(types.values())
            ),
            "elsewhere": _ELSEWHERE
            if space.source == DOCUMENTS.fullname
            else "NULL AS modality, NULL AS uri, NULL AS seconds",
            "written": {"bit": "varbit"}.get(space.storage, space.storage),
            "read_keys": ", ".join(f"r.{quoted(name)}" for name in types),
            "of_read": _same("r", types, quoted),
            "of_kept": _same("t", types, quoted),
            "of_source": _same("s", types, lambda name: quoted(name.removeprefix("source_"))),
        }

    @classmethod
    def of(cls, connection: sa.Connection, space: Space) -> SpaceTables:
        """Look up the tables of a space."""
        found = connection.execute(sa.text(_TABLES), {"space": space.id}).one()
        types = {
            name: (type_, oid)
            for name, type_, oid in zip(found.key_names, found.key_types, found.key_oids, strict=True)
        }
        extra = extra_spaces(connection, space) if found.chunks is not None else {}
        return cls(space, found.chunks, found.terms, types, extra, found.schema)

    def look_again(self, connection: sa.Connection) -> None:
        """See which extra vectors there are, once rows are claimed: those that come later make the rows wait again."""
        if self.chunks is not None:
            self.extra = extra_spaces(connection, self.space)

    def sql(self, statement: str, **more: str) -> sa.TextClause:
        """Fill in the names of the tables and of their keys, and `more`."""
        names = {**self._names, **more}
        filled = re.sub(r"\{(\w+)\}", lambda found: names[found[1]].replace(":", "\\:"), statement)
        return sa.text(filled)

    def read(self, connection: sa.Connection, keys: Sequence[str]) -> list[SourceRow]:
        """Return the first of these rows: as many as `READ_BYTES` allow, at least one."""
        with planned_anew(connection, self.space.source):
            found = connection.execute(self.sql(_READ), {"keys": as_json(keys), "bytes": READ_BYTES}).all()
        return [
            SourceRow(key, tuple(values) if there else None, _body(title or "", content or "", *about), hash_)
            for key, there, title, content, hash_, *about, values in ((*row[:8], row[8:]) for row in found)
        ]

    def known(self, connection: sa.Connection, rows: Sequence[SourceRow]) -> dict[bytes, Vector]:
        """Return the vectors of these rows' chunks, by the hash of what the encoder read."""
        storage = Storage(self.space.storage)
        with planned_anew(connection, self.space.source):
            found = connection.execute(self.sql(_KNOWN), {"keys": as_json(row.key for row in rows)}).all()
        return {bytes(hash_): storage.parse(numbers(vector)) for hash_, vector in found}

    def store(self, connection: sa.Connection, batch: Sequence[EncodedRow]) -> None:
        """Store the chunks of rows; those of rows that are gone are removed."""
        rechunked = [row for row in batch if row.chunks is not None or row.source.values is None]
        if not rechunked:
            return
        with planned_anew(connection, self.space.source):
            connection.execute(self.sql(_DELETE_CHUNKS), {"keys": as_json(row.source.key for row in rechunked)})
        self.insert(connection, rechunked)

    def claim_revision(self, connection: sa.Connection, encoder: str, revision: str) -> None:
        """Make sure that the vectors of the space are of one revision of its encoder: the first that stores any.

        Raises:
            EncoderMismatch: They are of another.
        """
        claim_revision(connection, self.space, encoder, revision)

    def analyze(self, connection: sa.Connection) -> None:
        """Make the statistics of the tables anew; a role that may not gets a warning from the server."""
        extra = [quoted_table(space.chunk_table, self.schema) for space in self.extra.values()]
        for table in filter(None, (self.chunks, self.terms, *extra)):
            connection.execute(sa.text(f"ANALYZE {table}"))

    def existing(self, connection: sa.Connection, keys: Sequence[str]) -> set[str]:
        """Return those of these rows that are there."""
        with planned_anew(connection, self.space.source):
            return set(connection.scalars(self.sql(_EXISTING), {"keys": as_json(keys)}))

    def _types(self, connection: sa.Connection) -> list[int]:
        """Return the types of a row that is copied; those whose binary form is their text are sent as text."""
        keys = [oid if has_binary_form(connection, oid) else TEXT for oid in self._oids]
        return [*keys, INTEGER, TEXT, BYTEA, BYTEA, BYTEA, BYTEA]

    def _copies(self, connection: sa.Connection) -> bool:
        """Whether rows can be copied: psycopg can write their keys, or the server reads them as text."""
        if not copies(connection):
            return False
        if self._texts is None:
            unknown = [oid for oid in self._oids if not has_binary_form(connection, oid)]
            self._texts = not unknown or bool(connection.scalar(_READ_AS_TEXT, {"types": unknown}))
        return self._texts

    def insert(self, connection: sa.Connection, batch: Sequence[EncodedRow]) -> None:
        """Store the chunks of rows that have none."""
        if not any(row.chunks for row in batch):
            return
        columns = ["ordinal", "text", "locator", "hash", "source_hash", "embedding"]
        storage = Storage(self.space.storage)
        if self._copies(connection):
            into = f"{self.chunks} ({self._names['keys']}, {', '.join(columns)})"
            copy(connection, into, self._types(connection), _copied(batch, storage))
        else:
            values = zip(*_inserted(batch, storage), strict=True)
            names = ("row_keys", "ordinals", "texts", "locators", "hashes", "source_hashes", "vectors")
            connection.execute(self.sql(_INSERT), dict(zip(names, map(list, values), strict=True)))


def claim_revision(connection: sa.Connection, space: Space, encoder: str, revision: str) -> None:
    """Make sure that the vectors of a space are of one revision of its encoder; see `SpaceTables.claim_revision`."""
    if space.revision == revision:
        return
    claimed = connection.execute(_CLAIM, {"space": space.id, "revision": revision}).rowcount
    found = connection.scalar(sa.select(Space.revision).where(Space.id == space.id))
    if found != revision:
        raise EncoderMismatch(
            f"the vectors of {space.search} were made by {space.encoder} revision {found}, but this "
            f"is {encoder} revision {revision}; use the same model files, or make another space: pgneural space create"
        )
    if not claimed:  # else it is so only if the transaction is committed
        space.revision = revision


@contextlib.contextmanager
def planned_anew(connection: sa.Connection, source: str) -> Iterator[None]:
    """Have statements planned for the tables as they are, and find what they name in the schema of the source.

    The server's own schema comes first, so that nothing of theirs is executed in place of what it has. A plan that
    was kept from when the tables were empty would read them from end to end for every row.
    """
    local = connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT"
    before = connection.execute(_SET, {"source": source, "local": local}).one()._mapping
    try:
        yield
    except BaseException:
        if not local:  # within a transaction the settings end with it
            connection.execute(_SET_BACK, {**before, "local": local})
        raise
    connection.execute(_SET_BACK, {**before, "local": local})


def _same(alias: str, types: dict[str, tuple[str, int]], quote: Any) -> str:
    """Return the condition that a row has the key of ``k.key``, a JSON array."""
    return " AND ".join(
        f"{alias}.{quote(name)} = (k.key ->> {place})::{type_}"
        for place, (name, (type_, _)) in enumerate(types.items())
    )


def as_json(keys: Iterable[str]) -> str:
    """Return keys, each as JSON, as a JSON array."""
    return "[" + ",".join(keys) + "]"


def numbers(vector: Any) -> Any:
    """Return a vector as numbers, whatever the connection makes of it."""
    return json.loads(vector) if isinstance(vector, str) and vector.startswith("[") else vector


def _copied(batch: Sequence[EncodedRow], storage: Storage) -> Iterator[tuple[Any, ...]]:
    rows = [row for row in batch if row.chunks and row.source.values is not None]
    every = [row.vectors for row in rows if row.vectors is not None]
    vectors = iter(storage.to_binary(np.concatenate(every)) if every else ())
    for row in rows:
        for ordinal, chunk in enumerate(row.chunks or ()):
            locator = b"\x01" + _JSON.encode(chunk.locator).encode()  # the binary form of jsonb: a version, the text
            yield (*(row.source.values or ()), ordinal, chunk.text, locator, chunk.hash, row.source_hash, next(vectors))


_JSON = json.JSONEncoder()


def _inserted(batch: Sequence[EncodedRow], storage: Storage) -> Iterator[tuple[Any, ...]]:
    for row in batch:
        if not row.chunks or row.vectors is None or row.source.values is None:
            continue
        for ordinal, (chunk, vector) in enumerate(zip(row.chunks, row.vectors, strict=True)):
            locator, written = json.dumps(chunk.locator), storage.to_text(vector)
            yield (row.source.key, ordinal, chunk.text, locator, chunk.hash, row.source_hash, written)


_SET = sa.text("""
WITH before AS MATERIALIZED (
    SELECT current_setting('plan_cache_mode') AS mode, current_setting('search_path') AS path)
SELECT mode, path, set_config('plan_cache_mode', 'force_custom_plan', :local) AS planned,
       set_config('search_path', neural.reading_path(:source), :local) AS found
  FROM before""")

_SET_BACK = sa.text("SELECT set_config('plan_cache_mode', :mode, :local), set_config('search_path', :path, :local)")

_TABLES = """
SELECT k.chunks, k.terms, k.key_names, k.key_types, k.key_oids, (parse_ident(s.source))[1] AS schema
  FROM neural.spaces s, neural.space_tables(s.id) k WHERE s.id = :space"""

_READ_AS_TEXT = sa.text("""
SELECT bool_and(CAST(t.typreceive AS text) IN ('textrecv', 'varcharrecv', 'bpcharrecv', 'citextrecv', 'enum_recv'))
  FROM pg_catalog.pg_type t WHERE t.oid = ANY (CAST(:types AS oid[]))""")


def _body(title: str, content: str, modality: str | None, uri: str | None, seconds: Any) -> Content:
    """Return what a row is found by; of what is no text, the database has but the words and the uri."""
    spoken = written_seconds(seconds)
    if modality in (None, Modality.TEXT) or modality not in tuple(Modality):
        return Content(Modality.TEXT, content, title, seconds=spoken)
    return Content(Modality(modality), None, title, uri, content, spoken)


def written_seconds(written: str | None) -> list[list[float]]:
    """Read when each line of a text was spoken, from JSON; whoever wrote the row wrote that, too."""
    if not written:
        return []
    try:
        return [list(span) for span in seconds_of(json.loads(written))]
    except (ValueError, RecursionError):  # as of a number with more digits than Python reads
        return []


_KEYS = "jsonb_array_elements((:keys)::jsonb) AS k(key)"

_ELSEWHERE = """(SELECT d.modality FROM neural.documents d WHERE d.id = r.source_id),
               (SELECT d.uri FROM neural.documents d WHERE d.id = r.source_id),
               (SELECT CAST(d.metadata -> 'seconds' AS text) AS seconds
                  FROM neural.documents d WHERE d.id = r.source_id)"""

_READ = """
SELECT key::text, there, title, content, source_hash, modality, uri, seconds, {keys}
  FROM (SELECT *, sum(size) OVER (ORDER BY place) AS so_far
          FROM (SELECT *, coalesce(octet_length(title), 0) + coalesce(octet_length(content), 0)
                          + coalesce(octet_length(seconds), 0) AS size
                  FROM (SELECT k.key, k.place, r.there, r.title::text, r.content::text, t.source_hash, {elsewhere},
                               {read_keys}
                          FROM jsonb_array_elements((:keys)::jsonb) WITH ORDINALITY AS k(key, place)
                          LEFT JOIN LATERAL (
                              SELECT true AS there, r.* FROM ({reads}) r WHERE {of_read} OFFSET 0) r ON true
                          LEFT JOIN {chunks} t ON t.ordinal = 0 AND {of_kept}) found) sized) every
 WHERE so_far - size < :bytes ORDER BY place"""

_KNOWN = f"SELECT t.hash, t.embedding FROM {_KEYS} JOIN {{chunks}} t ON {{of_kept}}"  # noqa: S608

_EXISTING = f"SELECT k.key::text FROM {_KEYS} JOIN {{source}} s ON {{of_source}}"  # noqa: S608

_DELETE_CHUNKS = f"DELETE FROM {{chunks}} t USING {_KEYS} WHERE {{of_kept}}"  # noqa: S608

_INSERT = """
INSERT INTO {chunks} ({keys}, ordinal, text, locator, hash, source_hash, embedding)
SELECT {typed_keys}, r.ordinal, r.text, r.locator::jsonb, r.hash, r.source_hash, r.embedding::{written}
  FROM unnest(CAST(:row_keys AS text[]), CAST(:ordinals AS integer[]), CAST(:texts AS text[]),
              CAST(:locators AS text[]), CAST(:hashes AS bytea[]), CAST(:source_hashes AS bytea[]),
              CAST(:vectors AS text[])) AS r(key, ordinal, text, locator, hash, source_hash, embedding)"""

# who comes second waits here, and then reads what the first has claimed
_CLAIM = sa.text("UPDATE neural.spaces SET revision = :revision WHERE id = :space AND revision = ''")
