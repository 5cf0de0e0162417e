"""The lexical leg: BM25 over the words of each row (design 5.2; ``sql/20_lexical.sql`` makes both sides).

::

    question    the query as a tsquery (``every``, ``rare``) and as weights; the score is their inner product
    few_words   few rows pass the filter: those of them that match
    rare_words  many pass: the rows with one of the rarest words, from the GIN index
    more_words  only if a row without a rare word could still be among the best: the rows with any word but the
                commonest
    fresh       rows that have just changed, by their text: their words are not indexed yet
    lexical     the best of them

Most rows that match a question have nothing but its common words. The rare words give a first ranking, and with
it the score that the last row wanted has at least. The commonest words that together add less than that cannot
bring a row among the best, so rows with no other words are never looked at (MaxScore, Turtle and Flood 1995);
the ranking is the same as without pruning.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import SPARSEVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSQUERY
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.statement.probe import Probe
from pgneural.statement.target import Target, constant, row_by_row, scalar
from pgneural.store.schema import TERM_DIMENSIONS

RARE_ROWS = 2000
"""About how many rows the rarest words should bring: reading and scoring so many takes a few milliseconds."""


FRESH_ROWS = 1000
"""Rows of others, changed a moment ago, whose text is read because their words are not indexed yet: a tenth of a
second at worst. Those of the transaction itself are all read."""


class LexicalLeg:
    """The CTEs of the leg.

    Attributes:
        question: CTE ``question``, one row; ``neural.lexical_query`` says what is in it.
        rows: CTE ``lexical``: key and ``bm25`` of the best rows.
        strategy: How they are found, as a text.

    Args:
        target: What to search.
        text: The query; ``"a phrase"`` must occur, ``-word`` must not, ``word*`` is a beginning.
        probe: How many rows pass the filter.
        rows: How many rows to return.
        guaranteed: How many of them must be the same as without pruning.
    """

    def __init__(self, target: Target, text: str, probe: Probe, *, rows: int, guaranteed: int) -> None:
        self.target, self.probe, self.limit = target, probe, rows
        self.question = question(target, text)
        self.every = scalar(self.question.c.every)
        few, rare = self._few_words(), self._rare_words()
        self.last = self._last_score(rare, guaranteed)
        rest = scalar(self.question.c.rest)
        self.pruned = sa.or_(rest == 0, self.last >= rest)
        self.fresh = fresh_rows(target, self.question, probe)
        self.rows = self._lexical(few, rare, self._more_words())
        self.strategy = sa.case((probe.few, "exact"), (self.pruned, "rare words"), else_="more words")

    def order(self, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        """Return the order of the ranking."""
        return [rows.c.bm25.desc(), *self.target.keys_of(rows)]

    def of_row(self, of: sa.FromClause) -> LateralFromClause:
        """Return ``bm25`` of a row, whether or not it is among the candidates; no row where it does not match."""
        terms = self.target.words
        matches = sa.and_(self.target.same_row(terms, of), terms.c.lexemes.op("@@")(self.every))
        indexed = sa.select(self._score().label("bm25")).where(matches)
        if self.fresh is None:
            return row_by_row(indexed, "matched")
        fresh = sa.select(self.fresh.c.bm25).where(self.target.same_row(self.fresh, of))
        either = sa.union_all(indexed.correlate(of), fresh.correlate(of)).subquery("either").lateral("either")
        return row_by_row(sa.select(sa.func.max(either.c.bm25).label("bm25")), "matched")

    def best_chunk(self, of: sa.FromClause) -> LateralFromClause:
        """Return the chunk of a row that says most of the query's words."""
        target = self.target
        words = sa.func.neural.lexemes(target.words.c.language, "", target.chunks.c.text)
        return (
            sa.select(target.chunks.c.ordinal)
            .select_from(target.chunks.join(target.words, target.same_row(target.words, target.chunks)))
            .where(target.same_row(target.chunks, of))
            .order_by(sa.func.ts_rank(words, self.every).desc(), target.chunks.c.ordinal)
            .limit(constant(1))
            .lateral("chunk")
        )

    def _score(self) -> sa.ColumnElement[float]:
        product = self.target.words.c.weights.op("<#>", return_type=sa.Float())(scalar(self.question.c.weights))
        return -product

    def _candidates(self) -> sa.Select[Any]:
        terms = self.target.words
        return sa.select(*self.target.keys_of(terms), self._score().label("bm25"))

    def _best(self, candidates: sa.Select[Any]) -> sa.Select[Any]:
        return candidates.order_by(sa.desc("bm25"), *self.target.keys_of(self.target.words)).limit(constant(self.limit))

    def _few_words(self) -> sa.CTE:
        target, keys = self.target, self.probe.keys
        matching = target.words.c.lexemes.op("@@")(self.every)
        words = row_by_row(self._candidates().where(target.same_row(target.words, keys), matching), "of_row")
        rows = sa.select(words).select_from(keys.join(words, sa.true())).where(self.probe.few)
        return self.target.named(rows.order_by(*self.order(words)).limit(constant(self.limit)), "few_words")

    def _rare_words(self) -> sa.CTE:
        return self.target.named(self._matching(scalar(self.question.c.rare), sa.not_(self.probe.few)), "rare_words")

    def _more_words(self) -> sa.CTE:
        dropped = sa.func.coalesce(sa.func.width_bucket(self.last, self.question.c.bounds), 0)
        query = sa.select(self.question.c.without[dropped + 1]).scalar_subquery()
        condition = sa.and_(sa.not_(self.probe.few), sa.not_(self.pruned))
        return self.target.named(self._matching(query, condition), "more_words")

    def _last_score(self, rare: sa.CTE, guaranteed: int) -> sa.ColumnElement[float]:
        """Return the score that the last row wanted has at least, 0 where there are not so many yet."""
        last = sa.select(rare.c.bm25).order_by(rare.c.bm25.desc()).offset(constant(guaranteed - 1)).limit(constant(1))
        return sa.func.coalesce(last.scalar_subquery(), 0, type_=sa.Float)

    def _matching(self, query: sa.ColumnElement[Any], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        terms = self.target.words
        matches = terms.c.lexemes.op("@@")(query)
        return self._best(self._candidates().where(condition, matches, *self.probe.passes(terms)))

    def _lexical(self, few: sa.CTE, rare: sa.CTE, every: sa.CTE) -> sa.CTE:
        rare_rows = sa.select(rare).where(self.pruned)
        parts = [sa.select(few), rare_rows, sa.select(every)]
        if self.fresh is not None:
            found = sa.union_all(*parts, sa.select(self.fresh)).subquery("found")
            keys = self.target.keys_of(found)
            parts = [sa.select(*keys, sa.func.max(found.c.bm25).label("bm25")).group_by(*keys)]
        found = sa.union_all(*parts).subquery("words")
        order = [found.c.bm25.desc(), *self.target.keys_of(found)]
        return self.target.named(sa.select(found).order_by(*order).limit(constant(self.limit)), "lexical")


def fresh_rows(target: Target, question: sa.CTE, probe: Probe) -> sa.CTE | None:
    """Return CTE ``fresh``: key and ``bm25`` of rows whose words are not indexed yet; None where none can be."""
    if target.reads is None:
        return None
    space = sa.cast(target.space, sa.BigInteger)
    key = sa.func.neural.noted_keys(space, constant(FRESH_ROWS), type_=JSONB).column_valued("key")
    noted = target.named(sa.select(key.label("key")), "noted")
    keys = {name: column.type for name, column in target.keys.items()}
    names = [sa.column(name, kind) for name, kind in keys.items()]
    texts = [sa.column(name, sa.Text()) for name in ("title", "content", "language")]
    reads = sa.text(target.reads.replace(":", "\\:")).columns(*names, *texts).subquery("r")
    same = [
        reads.c[name] == sa.cast(noted.c.key.op("->>")(constant(place)), kind)
        for place, (name, kind) in enumerate(keys.items())
    ]
    row = row_by_row(sa.select(reads).where(*same), "row")
    text = [sa.cast(row.c[name], sa.Text) for name in ("title", "content", "language")]
    asked = scalar(question.c.words), scalar(question.c.weights)
    score = sa.func.neural.fresh_score(space, *text, *asked, type_=sa.Float).label("bm25")
    scored = sa.select(*(row.c[name] for name in keys), score).select_from(sa.join(noted, row, sa.true()))
    every = scored.offset(constant(0)).subquery("scored")
    matching = sa.select(every).where(every.c.bm25.is_not(None), *probe.passes(every))
    return target.named(matching, "fresh")


def question(target: Target, text: str) -> sa.CTE:
    """Return CTE ``question``, one row: what the lexical leg needs to know of a query."""
    asked = sa.func.neural.lexical_query(
        sa.cast(target.space, sa.BigInteger), sa.cast(target.parameter("text", text, sa.Text()), sa.Text), RARE_ROWS
    ).table_valued(
        sa.column("weights", SPARSEVEC(TERM_DIMENSIONS)),
        sa.column("every", TSQUERY),
        sa.column("rare", TSQUERY),
        sa.column("rest", sa.Float),
        sa.column("bounds", ARRAY(sa.Float)),
        sa.column("without", ARRAY(TSQUERY)),
        sa.column("ideal", sa.Float),
        sa.column("words", TSQUERY),
        name="asked",
    )
    return target.named(sa.select(asked), "question")


def matching_words(target: Target, text: str) -> sa.ColumnElement[bool]:
    """Return the condition on a row of the source that it matches a query by its words."""
    terms = target.words
    matches = terms.c.lexemes.op("@@")(scalar(question(target, text).c.every))
    return sa.exists().where(target.same_row(terms, target.source), matches).correlate(target.source)
