"""A collection: index documents into it, search it, delete from it.

Everything here is a thin face over `pgneural.ingest` (in) and the search (out). The encoder is made when the
first text has to become a vector, so that a run that finds nothing new costs no model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import sqlalchemy as sa

from pgneural import transcribers
from pgneural.counting import Counting
from pgneural.document_searcher import DocumentSearcher
from pgneural.documents import contained, others, stored_documents, stored_keys
from pgneural.errors import InvalidQuery, UnknownDocument
from pgneural.explain import Explanation, explain
from pgneural.filter import Expression, Filter, condition
from pgneural.ingest.documents import Ingest
from pgneural.ingest.records import Incoming, Indexable
from pgneural.ingest.speech import with_transcripts
from pgneural.load import Selection, read_question
from pgneural.options import (
    QueryInput,
    SearchOptions,
    checked,
    inputs_of,
    page_of,
    patience_of,
    query_of,
    refinement_of,
    text_of,
    with_arrays,
)
from pgneural.query import Query as StoredQuery
from pgneural.report import Progress, Report
from pgneural.search import Hits, Refinement, filter_errors, mean_vectors
from pgneural.statement import Page, Query
from pgneural.store.engine import translated
from pgneural.store.freshness import wait_until_fresh
from pgneural.store.indexes import BuildProgress, build, rebuild
from pgneural.store.lexical import complete
from pgneural.store.pruning import now
from pgneural.store.schema import DOCUMENTS, Document, Space
from pgneural.store.space import indexed_of
from pgneural.store.vectors import VectorIndex
from pgneural.store.visibility import follow_row_security
from pgneural.store.writer import among, delete
from pgneural.transcribers import Transcriber
from pgneural.transcribers.question import in_words
from pgneural.types import BadRecord, Encoder, Modality, Mode, Record, Vector


class Collection:
    """The documents of one name, with their vectors. Made by `pgneural.database.Database.collection`."""

    def __init__(self, searcher: DocumentSearcher) -> None:
        self.searcher = searcher

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._space.attribute

    @property
    def space(self) -> Space:
        """The space of the collection's vectors."""
        return self._space

    @property
    def encoder(self) -> Encoder:
        """The encoder that made the collection's vectors; loading it may take seconds.

        Raises:
            EncoderMismatch: The encoder of this name has another revision here.
        """
        return self.searcher.encoder

    @property
    def chunks(self) -> sa.Table:
        """The chunk table, for statements of your own."""
        return self.searcher.chunks

    @property
    def _space(self) -> Space:
        return self.searcher.space

    @property
    def modes(self) -> Sequence[Mode]:
        """The modes in which it can be searched: sparse only with a sparse encoder."""
        return [mode for mode in Mode if mode is not Mode.SPARSE or "sparse" in self.searcher.extra]

    def id_of(self, document: Document) -> str:
        """Return what a document is known by."""
        return document.external_id

    def index(
        self,
        items: Indexable | Iterable[Indexable],
        *,
        bad_records: Literal["skip", "refuse"] = "skip",
        prune: bool = False,
        follow_links: bool = False,
        selection: Selection | None = None,
        transcriber: str | Path | Transcriber | None = None,
        progress: Progress | None = None,
        build_progress: Callable[[BuildProgress], None] | None = None,
    ) -> Report:
        """Store documents; those that are stored already and have not changed cost next to nothing.

        Args:
            items: Paths, records, mappings with the fields of a JSONL record, `Document` rows; one or many.
            bad_records: ``skip``, or ``refuse`` to raise after the good ones are stored.
            prune: Delete documents that came from these paths and whose files, or records in a file, are gone, or are
                hidden or ignored by now.
            follow_links: Read also what symbolic links in folders lead to.
            selection: What of folders is read: hidden files, what ``.gitignore`` names, patterns. By default neither
                hidden files nor what is ignored.
            transcriber: What turns speech into words: a name as of `pgneural.transcribers.get`. By default, that of the
                recordings that are stored; of the first, ``whisper-tiny.en`` where the encoder accepts no sounds.
            progress: Called after every batch with the report so far.
            build_progress: Called while the vector index is built.

        Raises:
            RefusedRecords: There were bad records and they are to be refused.
            UnreadableInput: A path does not exist.

        Example:
            >>> notes.index([{"id": "1", "text": "The quick brown fox"}]).inserted
            1
        """
        with self.searcher.existing():
            self.searcher.reopen()
            started = now(self.searcher.engine)
            incoming = Incoming(items, follow_links=follow_links, selection=selection, accepts=self._reads)
            extra = list(self.searcher.extra.values())
            ingest = Ingest(self.searcher.engine, self._space, lambda: self.encoder, progress, extra)
            report = ingest.run(self._transcribed(incoming, transcriber))
            complete(self.searcher.engine, self._space, report.rows)
            with self.searcher.engine.begin() as connection:
                follow_row_security(connection)
            build(self.searcher.engine, self._space, build_progress)
            for extra_vectors in extra:  # of documents that were stored before
                extra_vectors.complete(self.searcher.engine, self._space)
            self.searcher.forget_statements()  # the statistics are old now
            return incoming.finish(ingest, started if prune else None, refuse=bad_records == "refuse")

    def _reads(self, modality: Modality) -> bool:
        """Whether files of a kind can be read: by the encoder, or what is spoken in them."""
        return self.searcher.accepts(modality) or (modality is Modality.AUDIO and self.searcher.accepts(Modality.TEXT))

    def _transcribed(
        self, records: Incoming, transcriber: str | Path | Transcriber | None
    ) -> Iterator[Record | BadRecord]:
        """Return records with what is spoken in them, where that is wanted."""
        if transcriber is not None:
            model = transcribers.get(transcriber)  # what is no transcriber is refused before anything is stored
            return with_transcripts(records, lambda: model, unless=lambda: False)
        known = functools.cache(self.searcher.known_transcriber)
        hears = functools.cache(lambda: not known() and self.searcher.accepts(Modality.AUDIO))
        return with_transcripts(records, lambda: transcribers.again(known()), unless=hears)

    def reindex(self, index: VectorIndex, *, progress: Callable[[BuildProgress], None] | None = None) -> None:
        """Index the vectors in another way; the old index serves until the new one is built.

        Args:
            index: How.
            progress: Called while it is built.

        Raises:
            InvalidIndex: pgvector has no such index for these vectors.

        Example:
            >>> notes.reindex(VectorIndex(precision="full", options={"m": 24}))
        """
        with self.searcher.existing():
            rebuild(self.searcher.engine, self._space, index, progress)
            self.searcher.forget_statements()

    def search(self, query: QueryInput | StoredQuery, **options: Unpack[SearchOptions]) -> Hits:
        """Return the documents that answer a query best.

        Never short: `limit` documents if so many pass the filter, otherwise all, and ``exhausted`` is true.

        Args:
            query: A text; a vector of the collection's space; a picture, as the `pathlib.Path` of a file, its bytes, a
                Pillow image or an array, uint8, shape (height, width, 3); several of these with weights, which may
                be negative: ``{"jaguar": 1, "car": -0.5}``; or a `pgneural.Query`, whose filter `where` narrows and
                whose other options those given here replace. A text is never taken for the name of a file.
            where: A SQLAlchemy condition over `Document`, or an SQL predicate as text, alone or with parameters:
                ``("metadata->>'lang' = :lang", {"lang": "en"})``. A text runs with your rights: write it yourself,
                and pass what your users wrote as a parameter.
            limit: How many documents, at least 1.
            offset: How many to pass over; pages of one length neither repeat nor lose a document.
            mode: ``semantic`` (by meaning), ``lexical`` (by words: BM25), ``sparse`` (by the weights of a learned
                sparse encoder) or ``hybrid`` (all that the collection has); a text is searched hybrid, a vector
                semantic. In a lexical or hybrid query ``"a phrase"`` is required of what the words find (where too few
                documents have it, others follow after them, and are ``relaxed``), ``-word`` leaves documents out of
                every leg, and ``word*`` is a beginning. How rare a word is, is counted over all documents, whoever may
                see them.
            fusion: How a hybrid search joins its legs: `WeightedSum` or `RRF`.
            boosts: Scores from ordinary columns: `Boost`, or SQL expressions with weights.
            aggregate: How the chunks of a document become one score by meaning: ``max`` (the best), ``mean``, ``sum``,
                ``top3`` (the mean of the best three).
            max_distance: Leave out what is farther from the query.
            min_score: Leave out what scores less; see `pgneural.search.Hit`.
            rerank: A cross-encoder that reads query and text together: a folder, a reranker, or with a budget a
                `Rerank`; or `LateInteraction`, if the collection has vectors of tokens. The score of a hit is then
                what it says.
            inputs: What single legs are asked instead of the query, by their names: another text for ``lexical``, a
                vector or a text for ``semantic``.
            diversity: From 0 (the ranking as it is) to 1: prefer hits that differ from those before them (MMR).
            group_by: An expression over `Document`, or SQL as text as of `where`: of the documents with one value of
                it, only the best `per_group` are returned.
            per_group: How many of each group.
            fresh: ``require`` waits until every document that has changed so far is encoded; ``any`` does not.
            patience: For how many seconds it waits; 0 looks once.

        Raises:
            StaleResults: Documents are not encoded in time.
            DimensionMismatch: The vector has another length than the collection's.
            InvalidQuery: The vector has no direction, the limit is out of range, or the mode needs a text.
            UnknownCollection: It was dropped meanwhile.
            InvalidFilter: PostgreSQL does not accept the filter.

        Example:
            >>> notes.search("foxes", limit=1)[0].entity.external_id
            '1'
        """
        if isinstance(query, StoredQuery):
            return self.search(query.input, **query.narrowed(options))
        return self.searcher.search(lambda: self._searched_once(query, options))

    def _searched_once(self, query: QueryInput, options: SearchOptions) -> Hits:
        if (patience := patience_of(options)) is not None:
            with self.searcher.existing(), self.searcher.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                wait_until_fresh(connection, self._space.id, patience, self.name)
        request = self._query(query, options)
        refinement = refinement_of(request, options)
        return self.searcher.hits(self.searcher.with_tokens(request, options), refinement)

    def explain(self, query: QueryInput | StoredQuery, **options: Unpack[SearchOptions]) -> Explanation:
        """Search, and say what the search did: the way it took and why, what each stage cost, why no more hits.

        Arguments and errors are those of `search`; reranking and the like are not explained.

        Example:
            >>> print(notes.explain("foxes", limit=1))
            1 row passes the filter: few enough to compare them one by one.
            1 of these rows is the best that has words of the query.
        """
        if isinstance(query, StoredQuery):
            return self.explain(query.input, **query.narrowed(options))
        request = self._query(query, options)
        if refinement_of(request, options):
            raise InvalidQuery(
                "explain is of the statement; rerank, diversity and group_by come after it: leave them out"
            )
        hits = self.searcher.search(lambda: self.searcher.hits(self._query(query, options)))
        request = self._query(query, options)
        with translated(), self.searcher.engine.begin() as connection:
            return explain(connection, self.searcher.target(connection), request, hits)

    def like(self, external_id: str, *, where: Filter | None = None, limit: int = 10, offset: int = 0) -> Hits:
        """Return the documents nearest to a stored one, which is not among them.

        Raises:
            UnknownDocument: The collection has no document of this id.
        """
        return self.recommend([external_id], where=where, limit=limit, offset=offset)

    def recommend(
        self,
        positive: Sequence[str],
        negative: Sequence[str] = (),
        *,
        where: Filter | None = None,
        limit: int = 10,
        offset: int = 0,
        diversity: float = 0.0,
    ) -> Hits:
        """Return the documents nearest to some stored ones and far from others, none of which is among them.

        The query is the mean of the positive documents, moved away from the mean of the negative ones by their
        difference (Rocchio 1971, with equal weights).

        Args:
            positive: Ids of documents to be like, at least one.
            negative: Ids of documents to be unlike.
            where: As of `search`.
            limit: As of `search`.
            offset: As of `search`.
            diversity: As of `search`.

        Raises:
            UnknownDocument: The collection has no document of one of these ids.
            InvalidQuery: There is no positive one, or they cancel each other out.

        Example:
            >>> notes.recommend(["1"], limit=3)
            []
        """
        if not positive:
            raise InvalidQuery("recommend needs a positive document at least; give its id")
        page = page_of(limit, offset)
        return self.searcher.search(lambda: self._recommended(positive, negative, where, page, diversity))

    def _recommended(
        self, positive: Sequence[str], negative: Sequence[str], where: Filter | None, page: Page, diversity: float
    ) -> Hits:
        vectors, keys = self._stored([*positive, *negative])
        liked = np.mean(vectors[: len(positive)], axis=0)
        query = 2 * liked - np.mean(vectors[len(positive) :], axis=0) if negative else liked
        narrowed = others(keys, where)
        request = Query(Mode.SEMANTIC, page, {"semantic": self._vector(query)}, where=narrowed)
        return self.searcher.hits(request, refinement_of(request, {"diversity": diversity}))

    def discover(
        self,
        target: QueryInput | None,
        context: Sequence[tuple[str, str]],
        *,
        where: Filter | None = None,
        limit: int = 10,
    ) -> Hits:
        """Return documents on the right side of pairs of examples, and among these the nearest to a target.

        Each pair says: rather like the first than like the second. First come the documents for which most pairs hold,
        of all that are near the target (some hundred of them); without a target, near the first examples.

        Args:
            target: A text, a vector, or several texts with weights; None for the mean of the first examples.
            context: Ids of documents, in pairs of a good and a bad example.
            where: As of `search`.
            limit: As of `search`.

        Raises:
            UnknownDocument: The collection has no document of one of these ids.
            InvalidQuery: There is no pair.

        Example:
            >>> notes.discover("foxes", [("1", "1")], limit=3)
            []
        """
        if not context:
            raise InvalidQuery("discover needs a pair of examples at least; give ids of a good and of a bad one")
        return self.searcher.search(lambda: self._discovered(target, context, where, page_of(limit)))

    def _discovered(
        self, target: QueryInput | None, context: Sequence[tuple[str, str]], where: Filter | None, page: Page
    ) -> Hits:
        if target is not None:
            text_of(target)  # refuses what is none
        vectors, keys = self._stored([id_ for pair in context for id_ in pair])
        pairs = np.array(vectors, dtype=np.float32).reshape(len(context), 2, -1)
        query = self._vector(pairs[:, 0].mean(axis=0)) if target is None else self.searcher.vector(target)
        request = Query(Mode.SEMANTIC, page, {"semantic": query}, where=others(keys, where))
        return self.searcher.hits(request, Refinement(context=pairs))

    def facets(
        self,
        by: Expression,
        *,
        query: str | None = None,
        where: Filter | None = None,
        limit: int = 20,
    ) -> dict[Any, int]:
        """Count documents by the value of an expression, the most frequent first.

        Args:
            by: A SQLAlchemy expression over `Document`, or an SQL expression as text, as of `search`.
            query: Count only documents with any of these words; with a phrase those that have it, or if there are none
                those with any of the words.
            where: Count only documents that pass the filter.
            limit: How many values.

        Raises:
            InvalidFilter: PostgreSQL does not accept the filter or the expression.

        Example:
            >>> notes.facets("title LIKE 'T%'")
            {False: 1}
        """
        with self._counting(query, where) as counting:
            return counting.facets(by, limit)

    def total(self, *, query: str | None = None, where: Filter | None = None) -> int:
        """Count documents; arguments and errors are those of `facets`.

        Example:
            >>> notes.total(where="title LIKE 'T%'")
            0
        """
        with self._counting(query, where) as counting:
            return counting.total()

    @contextlib.contextmanager
    def _counting(self, query: str | None, where: Filter | None) -> Iterator[Counting]:
        with translated(), self.searcher.engine.begin() as connection:
            self.searcher.refresh(connection)
            target = self.searcher.target(connection)
            yield Counting(target, connection, query, where, "the columns of documents")

    def delete(self, external_ids: str | Sequence[str] | None = None, *, where: Filter | None = None) -> int:
        """Delete documents by id or by filter (both: those that meet both); return how many.

        Raises:
            ValueError: Neither is given; to drop the whole collection see `Database.drop`.
        """
        narrowed = with_arrays(condition(where))
        if external_ids is None and narrowed is None:
            raise ValueError("give ids or a filter; to delete everything, drop the collection")
        ids = [external_ids] if isinstance(external_ids, str) else external_ids
        named = None if ids is None else among(DOCUMENTS.c.external_id, ids)
        with translated(), self.searcher.engine.begin() as connection, filter_errors(where is not None):
            self.searcher.refresh(connection)
            narrowed = None if narrowed is None else contained(connection, narrowed)
            return delete(connection, self.name, [part for part in (named, narrowed) if part is not None])

    def documents(self, *, where: Filter | None = None, limit: int | None = None) -> Generator[Document]:
        """Yield the stored documents in the order of their ids, without reading all at once.

        Args:
            where: As of `search`.
            limit: How many; by default all.

        Raises:
            InvalidFilter: PostgreSQL does not accept the filter.

        Example:
            >>> [document.external_id for document in notes.documents()]
            ['1']
        """
        most = None if limit is None else page_of(limit).limit
        narrowed = with_arrays(condition(where))
        with self.searcher.existing(), self.searcher.engine.connect() as connection, filter_errors(where is not None):
            narrowed = None if narrowed is None else contained(connection, narrowed)
            yield from stored_documents(connection, self.name, narrowed, most)

    def document(self, external_id: str) -> Document:
        """Return a stored document.

        Raises:
            UnknownDocument: The collection has no document of this id.
        """
        with contextlib.closing(self.documents(where=Document.external_id == external_id, limit=1)) as documents:
            found = next(documents, None)
        if found is None:
            raise UnknownDocument(f"collection {self.name!r} has no document {external_id!r}; see its documents()")
        return found

    def count(self) -> int:
        """Return the number of documents."""
        with translated(), self.searcher.engine.connect() as connection:
            counting = sa.select(sa.func.count()).where(DOCUMENTS.c.collection == self.name)
            return connection.scalar(counting) or 0

    def _query(self, query: QueryInput, options: SearchOptions) -> Query:
        question = in_words(read_question(query), self.searcher.accepts, self.searcher.transcriber)
        if options.get("inputs"):
            inputs = inputs_of(options, self.searcher.transcriber)
            options = {**options, "inputs": inputs}  # files are read once
        return self.searcher.encoded(query_of(question, options), question, options)

    def _stored(self, external_ids: Sequence[str]) -> tuple[list[Vector], Iterable[tuple[int]]]:
        """Return the mean vectors of documents, and their keys."""
        with self.searcher.existing(), self.searcher.engine.connect() as connection:
            keys = stored_keys(connection, self.name, external_ids)
            try:
                means = mean_vectors(self.searcher.target(connection), connection, list(keys.values()))
            except InvalidQuery as error:
                raise UnknownDocument(f"collection {self.name!r} has a document without vectors: {error}") from error
        return [means[keys[id_]] for id_ in external_ids], keys.values()

    def _vector(self, values: Vector | Sequence[float]) -> Vector:
        return checked(values, indexed_of(self._space), f"collection {self.name!r}")
