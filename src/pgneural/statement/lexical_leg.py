"""The lexical leg: BM25 over the words of each row (design 5.2; ``sql/20_lexical.sql``, ``sql/21_lexical_query.sql``).

::

    question    the query as a tsquery (``every``, ``rare``) and as weights; the score is their inner product
    few_words   few rows pass the filter: those of them that match
    rare_words  many pass: the rows with one of the rarest words, from the GIN index
    more_words  only if a row without a rare word could still be among the best: the rows with any word but the
                commonest
    fresh       rows that have just changed, by their text: their words are not indexed yet
    phrased     only if the query has a "phrase": the rows that have it; where they are enough, no others are read
    lexical     the best of them, those with the phrase first

Most rows that match a question have nothing but its common words. The rare words give a first ranking, and with
it the score that the last row wanted has at least. The commonest words that together add less than that cannot
bring a row among the best, so rows with no other words are never looked at (MaxScore, Turtle and Flood 1995);
the ranking is the same as without pruning.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import SPARSEVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSQUERY
from sqlalchemy.sql.selectable import LateralFromClause

from pgneural.statement.probe import Probe
from pgneural.statement.target import Target, constant, count, row_by_row, scalar
from pgneural.store.tables import TERM_DIMENSIONS

RARE_ROWS = 2000
"""About how many rows the rarest words should bring: reading and scoring so many takes a few milliseconds."""


FRESH_ROWS = 1000
"""Rows of others, changed a moment ago, whose text is read because their words are not indexed yet: a tenth of a
second at worst. Those of the transaction itself are all read."""


class WordScore:
    """What a row of a terms table says to a query.

    Attributes:
        bm25: Its score.
        met: Whether it has every phrase.

    Args:
        terms: The terms table.
        question: CTE ``question``.
    """

    def __init__(self, terms: sa.FromClause, question: sa.CTE) -> None:
        self._terms, self._question = terms, question.c

    @property
    def bm25(self) -> sa.ColumnElement[float]:
        """The inner product of weights; those of a very rich row are in several vectors."""
        terms, weights = self._terms, scalar(self._question.weights)
        score = -terms.c.weights.op("<#>", return_type=sa.Float())(weights)
        more = sa.func.neural.more_score(terms.c.more_weights, weights, type_=sa.Float)
        return sa.case((terms.c.more_weights.is_(None), score), else_=score + more)

    @property
    def met(self) -> sa.ColumnElement[bool]:
        """By the places of the words; those of a long row are in its parts."""
        terms, question = self._terms, self._question
        parts = sa.func.neural.all_in_parts(terms.c.lexemes, terms.c.parts, scalar(question.phrases), type_=sa.Boolean)
        whole = terms.c.lexemes.op("@@")(scalar(question.demanded))
        return sa.func.coalesce(sa.case((terms.c.parts.is_(None), whole), else_=parts), False, type_=sa.Boolean)


class LexicalLeg:
    """The CTEs of the leg.

    A phrase is required as long as enough rows have it. Where they are fewer, the other rows follow after them, and
    are ``relaxed``.

    Attributes:
        question: CTE ``question``, one row; ``neural.lexical_query`` says what is in it.
        rows: CTE ``lexical``: key and ``bm25`` of the best rows, and ``met`` if the query has quotation marks.
        strategy: How they are found, as a text.
        phrases: Whether the query may have a phrase.
        enough: Whether so many rows have the phrase that no others are wanted.

    Args:
        target: What to search.
        text: The query; ``"a phrase"`` should occur, ``word*`` is a beginning; ``-word`` is a filter (`exclusion`).
        probe: How many rows pass the filter.
        rows: How many rows to return.
        guaranteed: How many of them must be the same as without pruning.
        wanted: With so many rows that have the phrase no others are wanted.
    """

    def __init__(self, target: Target, text: str, probe: Probe, *, rows: int, guaranteed: int, wanted: int) -> None:
        self.target, self.probe, self.limit = target, probe, rows
        self.question = question(target, text)
        self.every = scalar(self.question.c.every)
        self.score = WordScore(target.words, self.question)
        self.phrases = has_phrase(text)
        self.fresh = fresh_rows(target, self.question, probe)
        self.phrased = self._phrased() if self.phrases else None
        self.enough: sa.ColumnElement[bool] = sa.false()
        if self.phrased is not None:
            self.enough = scalar(target.named(count(self.phrased), "phrased_rows").c.n) >= constant(wanted)
        few, rare = self._few_words(), self._rare_words()
        self.last = self._last_score(rare, guaranteed)
        rest = scalar(self.question.c.rest)
        self.pruned = sa.or_(rest == 0, self.last >= rest)
        self.rows = self._lexical(few, rare, self._more_words())
        ways = [(self.enough, "phrases")] if self.phrases else []
        self.strategy = sa.case(*ways, (probe.few, "exact"), (self.pruned, "rare words"), else_="more words")

    def order(self, rows: sa.FromClause) -> list[sa.ColumnElement[Any]]:
        """Return the order of the ranking."""
        first = [rows.c.met.desc()] if self.phrases else []
        return [*first, rows.c.bm25.desc(), *self.target.keys_of(rows)]

    def of_row(self, of: sa.FromClause) -> LateralFromClause:
        """Return ``bm25`` of a row, whether or not it is among the candidates: 0 where it does not match.

        Of a row without any words there is nothing: the leg says nothing of it. If the query has quotation marks, also
        ``met``; a row without the phrase then matches only where those with it are too few.
        """
        terms = self.target.words
        matches = [terms.c.lexemes.op("@@")(self.every), *self._strict(self.score.met)]
        score = sa.case((sa.and_(*matches), self.score.bm25), else_=0.0).label("bm25")
        worded = [self.target.same_row(terms, of), terms.c.length > 0]
        if self.fresh is None:
            return row_by_row(sa.select(score, *self._met_columns(self.score.met)).where(*worded), "matched")
        indexed = sa.select(score, self.score.met.label("met")).where(*worded)
        again = sa.case((sa.and_(*self._strict(self.fresh.c.met)), self.fresh.c.bm25), else_=0.0)
        fresh = sa.select(again, self.fresh.c.met).where(self.target.same_row(self.fresh, of))
        either = sa.union_all(indexed.correlate(of), fresh.correlate(of)).subquery("either").lateral("either")
        columns = [sa.func.max(either.c.bm25).label("bm25"), *self._met_columns(sa.func.bool_or(either.c.met))]
        return row_by_row(sa.select(*columns), "matched")

    def _strict(self, met: sa.ColumnElement[bool]) -> list[sa.ColumnElement[bool]]:
        """Return what a row must meet where enough rows have the phrase."""
        return [sa.or_(sa.not_(self.enough), met)] if self.phrases else [sa.true()]

    def unmet(self, rows: sa.FromClause) -> sa.ColumnElement[bool]:
        """Return whether a row was found without the phrase that was asked for."""
        if not self.phrases:
            return sa.false()
        demands = scalar(self.question.c.demanded).is_not(None)
        return sa.and_(demands, sa.not_(self.enough), sa.not_(sa.func.coalesce(rows.c.met, False)))

    def _met_columns(self, met: sa.ColumnElement[bool]) -> list[sa.ColumnElement[Any]]:
        return [met.label("met")] if self.phrases else []

    def _phrased(self) -> sa.CTE:
        """Find the rows that have every phrase, those that have just changed among them."""
        terms, keys = self.target.words, self.target.keys_of
        may = terms.c.lexemes.op("@@")(scalar(self.question.c.phrased))
        rows = self._candidates().where(may, self.score.met, *self.probe.passes(terms))
        rows = rows.order_by(sa.desc("bm25"), *keys(terms)).limit(constant(self.limit))
        if self.fresh is None:
            return self.target.named(rows, "phrased")
        fresh = sa.select(*keys(self.fresh), self.fresh.c.bm25).where(self.fresh.c.met)
        both = sa.union_all(rows.subquery("indexed").select(), fresh).subquery("both")
        best = sa.select(*keys(both), sa.func.max(both.c.bm25).label("bm25")).group_by(*keys(both))
        return self.target.named(best, "phrased")

    def best_chunk(self, of: sa.FromClause) -> LateralFromClause:
        """Return the chunk of a row that says most of the query's words."""
        target = self.target
        words = sa.func.neural.query_words(target.words.c.language, target.chunks.c.text)
        several = sa.func.count().over() > constant(1)  # cutting a text into words takes longer than finding it
        rank = sa.case((several, sa.func.ts_rank(words, self.every)))
        return (
            sa.select(target.chunks.c.ordinal)
            .select_from(target.chunks.join(target.words, target.same_row(target.words, target.chunks)))
            .where(target.same_row(target.chunks, of))
            .order_by(rank.desc(), target.chunks.c.ordinal)
            .limit(constant(1))
            .lateral("chunk")
        )

    def _candidates(self) -> sa.Select[Any]:
        terms = self.target.words
        return sa.select(*self.target.keys_of(terms), self.score.bm25.label("bm25"))

    def _best(self, candidates: sa.Select[Any]) -> sa.Select[Any]:
        return candidates.order_by(sa.desc("bm25"), *self.target.keys_of(self.target.words)).limit(constant(self.limit))

    def _few_words(self) -> sa.CTE:
        target, keys = self.target, self.probe.keys
        matching = target.words.c.lexemes.op("@@")(self.every)
        words = row_by_row(self._candidates().where(target.same_row(target.words, keys), matching), "of_row")
        rows = sa.select(words).select_from(keys.join(words, sa.true())).where(self._wanted(self.probe.few))
        order = [words.c.bm25.desc(), *target.keys_of(words)]
        return self.target.named(rows.order_by(*order).limit(constant(self.limit)), "few_words")

    def _rare_words(self) -> sa.CTE:
        return self.target.named(
            self._matching(scalar(self.question.c.rare), self._wanted(sa.not_(self.probe.few))), "rare_words"
        )

    def _more_words(self) -> sa.CTE:
        dropped = sa.func.coalesce(sa.func.width_bucket(self.last, self.question.c.bounds), 0)
        query = sa.select(self.question.c.without[dropped + 1]).scalar_subquery()
        condition = self._wanted(sa.and_(sa.not_(self.probe.few), sa.not_(self.pruned)))
        return self.target.named(self._matching(query, condition), "more_words")

    def _last_score(self, rare: sa.CTE, guaranteed: int) -> sa.ColumnElement[float]:
        """Return the score that the last row wanted has at least, 0 where there are not so many yet."""
        last = sa.select(rare.c.bm25).order_by(rare.c.bm25.desc()).offset(constant(guaranteed - 1)).limit(constant(1))
        return sa.func.coalesce(last.scalar_subquery(), 0, type_=sa.Float)

    def _wanted(self, condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        """Narrow the condition on a branch: with enough rows that have the phrase no others are read."""
        return sa.and_(condition, sa.not_(self.enough)) if self.phrases else condition

    def _matching(self, query: sa.ColumnElement[Any], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        terms = self.target.words
        matches = terms.c.lexemes.op("@@")(query)
        return self._best(self._candidates().where(condition, matches, *self.probe.passes(terms)))

    def _lexical(self, few: sa.CTE, rare: sa.CTE, every: sa.CTE) -> sa.CTE:
        """Join the branches; a row whose words are not all in the index (``=more``) may have none of the query."""
        keys = self.target.keys_of

        def branch(rows: sa.FromClause, met: bool = False) -> sa.Select[Any]:
            columns = [*keys(rows), rows.c.bm25, *self._met_columns(sa.true() if met else sa.false())]
            return sa.select(*columns)

        parts = [branch(few), branch(rare).where(self.pruned), branch(every)]
        if self.fresh is not None:
            parts.append(branch(self.fresh).where(sa.not_(self.enough) if self.phrases else sa.true()))
        if self.phrased is not None:
            parts.append(branch(self.phrased, met=True))
        found = sa.union_all(*parts).subquery("words")
        rows = sa.select(found)
        if len(parts) > 3:  # a row may come from several
            met = self._met_columns(sa.func.bool_or(found.c.met)) if self.phrases else []
            rows = sa.select(*keys(found), sa.func.max(found.c.bm25).label("bm25"), *met).group_by(*keys(found))
            found = rows.subquery("each")
            rows = sa.select(found)
        rows = rows.where(found.c.bm25 > 0).order_by(*self.order(found)).limit(constant(self.limit))
        return self.target.named(rows, "lexical")


def has_phrase(text: str) -> bool:
    """Whether a query may have a phrase."""
    return '"' in text


def has_exclusion(text: str) -> bool:
    """Whether a query may have words that no row shall have."""
    return _EXCLUSION.search(text) is not None


_EXCLUSION = re.compile(r"(?:^|\s)-[^\s-]")


def noted_rows(target: Target, name: str = "noted") -> sa.Subquery | None:
    """Return the texts of rows whose words are not indexed yet; None where there can be none.

    Columns: the key, ``title``, ``content``, ``language``.
    """
    if target.reads is None:
        return None
    space = sa.cast(target.space, sa.BigInteger)
    key = sa.func.neural.unindexed_keys(space, constant(FRESH_ROWS), type_=JSONB).column_valued("key")
    noted = target.named(sa.select(key.label("key")), name)
    keys = {name: column.type for name, column in target.keys.items()}
    names = [sa.column(name, kind) for name, kind in keys.items()]
    texts = [sa.column(name, sa.Text()) for name in ("title", "content", "language")]
    reads = sa.text(target.reads.replace(":", "\\:")).columns(*names, *texts).subquery("r")
    same = [
        reads.c[name] == sa.cast(noted.c.key.op("->>")(constant(place)), kind)
        for place, (name, kind) in enumerate(keys.items())
    ]
    row = row_by_row(sa.select(reads).where(*same), "row")
    text = [sa.cast(row.c[name], sa.Text).label(name) for name in ("title", "content", "language")]
    rows = sa.select(*(row.c[name] for name in keys), *text).select_from(sa.join(noted, row, sa.true()))
    return rows.offset(constant(0)).subquery("noted_rows")


def fresh_rows(target: Target, question: sa.CTE, probe: Probe) -> sa.CTE | None:
    """Return CTE ``fresh``: key, ``bm25``, ``met`` of rows whose words are not indexed yet; None where none can be."""
    noted = noted_rows(target)
    if noted is None:
        return None
    columns = question.c
    score = sa.func.neural.fresh_score(
        sa.cast(target.space, sa.BigInteger),
        *(noted.c[name] for name in ("title", "content", "language")),
        *(scalar(column) for column in (columns.words, columns.weights, columns.demanded, columns.phrases)),
    )
    scores = score.table_valued(sa.column("bm25", sa.Float), sa.column("met", sa.Boolean), name="score")
    found = row_by_row(sa.select(scores), "found")
    keys = target.keys_of(noted)
    scored = sa.select(*keys, found.c.bm25, found.c.met).select_from(noted.join(found, sa.true()))
    every = scored.offset(constant(0)).subquery("scored_words")
    matching = sa.select(every).where(every.c.bm25.is_not(None), *probe.passes(every))
    return target.named(matching, "fresh")


def exclusion(target: Target, text: str) -> sa.ColumnElement[bool]:
    """Return the condition on a row of the source that it has nothing of what a query excludes: ``-word``.

    A row that has just changed is judged by its text.
    """
    excluded = sa.func.neural.unwanted_words(
        sa.cast(target.space, sa.BigInteger), sa.cast(target.parameter("text", text, sa.Text()), sa.Text), type_=TSQUERY
    )
    unwanted = target.named(sa.select(excluded.label("query")), "unwanted")
    terms = target.words.alias("excluded")
    query = scalar(unwanted.c.query)
    parts = sa.func.neural.in_parts(terms.c.lexemes, terms.c.parts, query, type_=sa.Boolean)
    has = sa.case((terms.c.parts.is_(None), terms.c.lexemes.op("@@")(query)), else_=parts)
    indexed = sa.exists().where(target.same_row(terms, target.source), has).correlate(target.source)
    noted = noted_rows(target, "noted_too")
    if noted is None:
        return sa.not_(indexed)
    text_of = (noted.c[name] for name in ("title", "content", "language"))
    space = sa.cast(target.space, sa.BigInteger)
    judged = sa.func.neural.fresh_has(space, *text_of, query, type_=sa.Boolean).label("has")
    fresh = target.named(sa.select(*target.keys_of(noted), judged).where(query.is_not(None)), "fresh_unwanted")
    by_text = sa.select(sa.func.bool_or(fresh.c.has)).where(target.same_row(fresh, target.source))
    return sa.not_(sa.func.coalesce(by_text.correlate(target.source).scalar_subquery(), indexed))


def question(target: Target, text: str) -> sa.CTE:
    """Return CTE ``question``, one row: what the lexical leg needs to know of a query."""
    parsed = sa.func.neural.lexical_query(
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
        sa.column("demanded", TSQUERY),
        sa.column("phrases", ARRAY(TSQUERY)),
        sa.column("phrased", TSQUERY),
        name="asked",
    )
    return target.named(sa.select(parsed), "question")


def matching_words(target: Target, text: str) -> sa.ColumnElement[bool]:
    """Return the condition on a row of the source that it matches a query by its words.

    Of a query with a phrase, rows that have it; where none has it, rows with any of its words.
    """
    terms, read = target.words, question(target, text)
    score = WordScore(terms, read)
    matches = [terms.c.lexemes.op("@@")(scalar(read.c.every)), score.bm25 > 0]
    if has_phrase(text):
        may = terms.c.lexemes.op("@@")(scalar(read.c.phrased))
        some = scalar(target.named(sa.select(sa.exists().where(may, score.met).label("found")), "some").c.found)
        matches.append(sa.or_(sa.not_(some), score.met))
    found = sa.exists().where(target.same_row(terms, target.source), *matches).correlate(target.source)
    return sa.and_(found, exclusion(target, text)) if has_exclusion(text) else found
