"""Indexing the words of a collection's rows, in the transaction that stores the rows.

A row is either in the terms table with the words that it has now, or not in it at all: whoever changes a row's
text replaces its words in the same transaction (`writer`). Rows that an earlier version left without words get
them by `complete`, which locks the rows that it reads: it may be stopped anywhere, and two may do it at once.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.exc import DBAPIError

from pgneural.errors import InvalidFilter
from pgneural.store.engine import execute_script, quoted
from pgneural.store.failures import BUSY, sqlstate
from pgneural.store.monitoring import NAMED
from pgneural.store.owner import Transactions
from pgneural.store.schema import SCHEMA, Space
from pgneural.store.space import read_spaces, terms_of
from pgneural.store.tables import terms_index

BATCH_ROWS = 2000
"""Rows of a transaction: enough that counting their words is shared, few enough not to lock many."""

SAMPLE_ROWS = 1000
"""From which the mean length is estimated before the first row is stored."""

DRIFT = 0.05
"""How far the mean length may move before the weights are made again. At the mean a weight changes by a third of it."""

REFRESH_BLOCKS = 128
"""Of a terms table, in one transaction: 1 MB, some hundred rows."""

FOLD_EVERY = 500
"""Rows after which, on average, the counts are summed up."""


def complete(engine: sa.Engine, space: Space, changed: int = 0) -> int:
    """Index the words of every row that has none, and anew those of an earlier version; look after index and counts.

    Args:
        engine: Where the collection is.
        space: Its space.
        changed: How many rows have just got their words, by `Words`.

    Returns:
        How many had none.
    """
    changed += refresh_all(engine, space.id)
    parameters = {"collection": space.attribute, "space": space.id, "rows": BATCH_ROWS, "sample": SAMPLE_ROWS}
    completed = 0
    with engine.begin() as connection:
        connection.execute(_sql(space, _ESTIMATE), parameters)
    last: str | None = ""  # keys are taken in the order in which writers lock them
    while last is not None:
        with engine.begin() as connection, _language_errors(space):
            rows, last = connection.execute(_sql(space, _COMPLETE), {**parameters, "last": last}).one()
        completed += rows
    changed += completed
    if changed:
        _refresh(engine, space, parameters)
        if random.random() < changed / FOLD_EVERY:
            _run(engine, space, _FOLD, parameters)
    _index(engine, space, analyze=changed >= BATCH_ROWS)  # also where a run before was stopped
    return completed


class Words:
    """Makes the words of rows that the same transaction has just stored.

    Args:
        space: The space of the collection.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._estimate, self._make = (_driver_sql(space, statement) for statement in (_ESTIMATE, _OF_ROWS))

    def make(self, connection: psycopg.Connection[Any], ids: Sequence[int], mean_length: float | None) -> None:
        """Index the words of these rows.

        Args:
            connection: In the transaction.
            ids: Keys of documents, whose old words are deleted already.
            mean_length: That of the space, None before its first row.

        Raises:
            LanguageFails: The expression of the language does not work for one of them.
        """
        parameters = {"collection": self._space.attribute, "space": self._space.id, "sample": SAMPLE_ROWS}
        try:
            if mean_length is None:
                connection.execute(self._estimate, parameters, prepare=False)
            connection.execute(self._make, {**parameters, "ids": ids}, prepare=False)  # the tables grow meanwhile
        except psycopg.DataError as error:
            if self._space.language_by is None:
                raise
            raise LanguageFails(str(error).splitlines()[0]) from error


class LanguageFails(Exception):
    """The expression that gives the language of a row does not work for one; the text says why."""


def _driver_sql(space: Space, statement: str) -> bytes:
    return str(_sql(space, statement).compile(dialect=psycopg_dialect())).encode()  # type: ignore[no-untyped-call]


def settle_apart(engine: Transactions, space: int, terms: str) -> None:
    """The same as `settle`, but in transactions of their own: nobody waits long for a row."""
    parameters = {"space": space, "drift": DRIFT}
    with engine.begin() as connection:
        if not connection.scalar(sa.text(_DRIFTED), parameters):
            return
        connection.execute(sa.text(_NEW_MEAN), parameters)
        blocks = (
            connection.scalar(sa.text("SELECT pg_relation_size(to_regclass(:terms)) / 8192"), {"terms": terms}) or 0
        )
    for first in range(0, blocks + 1, REFRESH_BLOCKS):
        with engine.begin() as connection:
            part = {"space": space, "first": f"({first},0)", "last": f"({first + REFRESH_BLOCKS},0)"}
            connection.execute(sa.text(_REFRESH_PART.replace("{terms}", terms)), part)


def fold(engine: Transactions, space: int) -> None:
    """Sum up the counts of a space."""
    with engine.begin() as connection:
        connection.execute(sa.text(_FOLD), {"space": space})


def settle(connection: sa.Connection, space: int, terms: str, changed: int) -> None:
    """After rows of a source got their words: make the weights anew if they have drifted, and sum up the counts."""
    parameters = {"space": space, "drift": DRIFT}
    if connection.scalar(sa.text(_DRIFTED), parameters):
        connection.execute(sa.text(_REFRESH.replace("{terms}", terms)), parameters)
    if random.random() < changed / FOLD_EVERY:
        connection.execute(sa.text(_FOLD), parameters)


def outdated(connection: sa.Connection, only: Sequence[str] = ()) -> list[Space]:
    """Return the spaces whose words an earlier version of this library made.

    Args:
        connection: Where.
        only: Names of searches or collections; empty for all.
    """
    ids = connection.scalars(_OUTDATED, {"only": list(only)}).all()
    return read_spaces(connection, Space.id.in_(ids))


def refresh_words(where: Transactions, space: int) -> int:
    """Make the words of some rows anew, where an earlier version made them; return of how many, 0 if all are done."""
    with where.begin() as connection:
        return connection.scalar(sa.text("SELECT neural.refresh_words(:space)"), {"space": space}) or 0


def refresh_all(where: Transactions, space: int) -> int:
    """Make all words of an earlier version anew; where somebody has locked a row, the next run goes on."""
    done = 0
    try:
        while more := refresh_words(where, space):
            done += more
    except DBAPIError as error:
        if sqlstate(error) not in BUSY:
            raise
    return done


@contextlib.contextmanager
def _language_errors(space: Space) -> Iterator[None]:
    """Blame the expression of the language, where there is one, for what it cannot make of a row."""
    try:
        yield
    except DBAPIError as error:
        if space.language_by is None or not isinstance(error.orig, psycopg.DataError):
            raise
        message = str(error.orig).splitlines()[0]
        raise InvalidFilter(
            f"language_by {space.language_by} does not work for a document: {message}; the documents are stored, but "
            "words are missing: mend that document and index again"
        ) from error


def _run(engine: sa.Engine, space: Space, statement: str, parameters: dict[str, object]) -> int:
    with engine.begin() as connection:
        return connection.execute(_sql(space, statement), parameters).rowcount


def _sql(space: Space, statement: str) -> sa.TextClause:
    names = {"{terms}": quoted(SCHEMA, terms_of(space).name), "{language_by}": space.language_by or "NULL"}
    filled = re.sub(r"\{terms\}|\{language_by\}", lambda found: names[found[0]].replace(":", "\\:"), statement)
    return sa.text(filled)


def _refresh(engine: sa.Engine, space: Space, parameters: dict[str, object]) -> None:
    """Make all weights again where the mean length has drifted; the vector index is not concerned."""
    with engine.begin() as connection:
        drifted = connection.scalar(_sql(space, _DRIFTED), {**parameters, "drift": DRIFT})
        if drifted:
            connection.execute(_sql(space, _REFRESH), parameters)


def _index(engine: sa.Engine, space: Space, *, analyze: bool) -> None:
    terms = terms_of(space)
    with engine.begin() as connection:
        key = sa.func.hashtextextended(f"pgneural index {terms.fullname}", 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        terms_index(terms).create(connection, checkfirst=True)
    if analyze:  # also empties the index's list of pending entries
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            execute_script(connection, f"VACUUM (ANALYZE) {quoted(SCHEMA, terms.name)}")


# no words yet: the mean length is that of a sample, drawn by a hash so that an ordered input does no harm
_ESTIMATE = """
UPDATE neural.spaces s SET mean_length = greatest(sampled.mean, 1)
  FROM (SELECT avg(w.length) AS mean
          FROM neural.spaces s,
               LATERAL (SELECT title, content FROM neural.documents d
                         WHERE d.collection = :collection ORDER BY hashint8(d.id) LIMIT :sample) d,
               LATERAL neural.row_words(s.language, d.title, d.content, s.title_boost, 1) w
         WHERE s.id = :space) sampled
 WHERE s.id = :space AND s.mean_length IS NULL AND sampled.mean IS NOT NULL"""

_MAKE = """spoken AS (
    SELECT m.*, s.title_boost, s.mean_length,
           coalesce(neural.text_search_configuration(nullif(m.named_language, '')), s.language) AS language
      FROM missing m JOIN neural.spaces s ON s.id = :space
), completed AS (
    INSERT INTO {terms} (source_id, language, lexemes, length, weights, parts, more_weights)
    SELECT d.id, d.language, w.lexemes, w.length, w.weights, w.parts, w.more_weights
      FROM spoken d
     CROSS JOIN LATERAL neural.row_words(
           d.language, d.title, d.content, d.title_boost, coalesce(d.mean_length, 1)) w
        ON CONFLICT DO NOTHING RETURNING 1
)
"""

# locked, so that nobody changes the text between reading it and storing its words
_COMPLETE = f"""
WITH missing AS (
    SELECT documents.id, documents.external_id, documents.title, documents.content, ({{language_by}}
           )::text AS named_language FROM neural.documents
     WHERE documents.collection = :collection AND documents.external_id > :last
       AND NOT EXISTS (SELECT FROM {{terms}} t WHERE t.source_id = documents.id)
     ORDER BY documents.external_id LIMIT :rows FOR SHARE
), {_MAKE} SELECT (SELECT count(*) FROM completed), (SELECT max(external_id) FROM missing)"""  # noqa: S608

_OF_ROWS = f"""
WITH missing AS (
    SELECT documents.id, documents.title, documents.content, ({{language_by}}
           )::text AS named_language FROM neural.documents WHERE documents.id = ANY(CAST(:ids AS bigint[]))
), {_MAKE} SELECT count(*) FROM completed"""  # noqa: S608

_OUTDATED = sa.text(f"""
SELECT s.id FROM neural.spaces s
 WHERE s.kind = 'dense' AND s.words_version < neural.words_version()
   AND (CAST(:only AS text[]) = '{{}}' OR {NAMED})""")  # noqa: S608

_DRIFTED = """
SELECT abs(c.mean / s.mean_length - 1) > :drift
  FROM neural.spaces s,
       (SELECT sum(tokens) / nullif(sum(documents), 0) AS mean FROM neural.corpus_counts WHERE space_id = :space) c
 WHERE s.id = :space AND c.mean > 0"""

_REFRESH = """
WITH counted AS (
    SELECT sum(tokens) / sum(documents) AS mean FROM neural.corpus_counts WHERE space_id = :space
), updated AS (
    UPDATE neural.spaces SET mean_length = counted.mean FROM counted WHERE id = :space RETURNING title_boost
)
UPDATE {terms} t SET (weights, more_weights) = (
       SELECT w.weights, w.more_weights
         FROM neural.row_weights(t.lexemes, t.parts, t.language, updated.title_boost, counted.mean) w)
  FROM updated, counted"""

_NEW_MEAN = """
UPDATE neural.spaces SET mean_length = c.mean
  FROM (SELECT sum(tokens) / sum(documents) AS mean FROM neural.corpus_counts WHERE space_id = :space) c
 WHERE id = :space"""

# who is busy with a row makes its weights by the new mean anyway
_REFRESH_PART = """
UPDATE {terms} t SET (weights, more_weights) = (
       SELECT w.weights, w.more_weights
         FROM neural.row_weights(t.lexemes, t.parts, t.language, s.title_boost, s.mean_length) w)
  FROM neural.spaces s
 WHERE s.id = :space AND t.ctid IN (
       SELECT f.ctid FROM {terms} f WHERE f.ctid >= CAST(:first AS tid) AND f.ctid < CAST(:last AS tid)
          FOR UPDATE SKIP LOCKED)"""

_FOLD = "SELECT neural.fold_counts(:space)"
