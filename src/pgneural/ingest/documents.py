"""Documents into a collection: records are compared, chunked, encoded and written, a batch at a time.

Cutting, encoding and writing overlap: the caller's thread reads and encodes, because its iterables and its
Ctrl-C belong there; one thread compares and cuts the next batch, another writes the one before. Memory
is bounded by the batches in flight, whatever the size of the input. A batch is one transaction, so the run
may be stopped at any point; running it again skips what is stored and completes the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from pgneural.chunkers import BY_DATA, require_accepted, require_chunker
from pgneural.encoders.precomputed import REVISION
from pgneural.errors import InvalidFilter, TransactionConflict, UnsupportedContent
from pgneural.extra_vectors import ExtraVectors
from pgneural.ingest.batch import BATCH_BYTES, BATCH_ROWS, Batch, body_for, cached_or_known, cut, encoded, source_hash
from pgneural.load import check, mistyped
from pgneural.load.permitted_files import with_data
from pgneural.report import REPORTED, Progress, Report
from pgneural.store.schema import Space
from pgneural.store.space import indexed_of
from pgneural.store.space_tables import EncodedRow, SourceRow, written_seconds
from pgneural.store.vector_cache import cache_vectors, evict
from pgneural.store.writer import IncomingDocument, Stored, WithoutLanguage, Writer
from pgneural.types import BadRecord, Chunk, Encoder, Record, Vector

BATCH_RECORDS = 2048
"""Enough that what a transaction costs does not show."""

MOST_ROUNDS = 100
"""So often documents are compared again that other processes change at the same time."""

YIELD_EVERY = 32
"""After so many records the reading thread lets another have the interpreter: the thread that writes would
otherwise wait the interpreter's 5 ms for every block it sends, longer than the server has work for."""

BATCH_CHARACTERS = 1_000_000
"""Closes a batch of long documents early."""

FORGET_EVERY = 50_000
"""Old vectors are looked for about once in so many chunks."""

_Accepted = tuple[Record, str]
"""A record that can be stored, and its metadata as JSON."""


@dataclass
class Compared:
    """Documents on their way.

    Attributes:
        documents: All of them.
        batch: Those that are new, or whose content has changed.
        refused: Those that the encoder does not accept.
        found: The vectors that are there already, by the hash of what was read.
    """

    documents: list[IncomingDocument]
    batch: Batch
    found: Mapping[bytes, Vector]
    refused: Sequence[BadRecord] = ()


class Ingest:
    """One run into one space.

    Args:
        engine: Where the collection is.
        space: Its space.
        encoder: Makes the encoder of the space; called when the first text needs a vector.
        progress: Called after every batch.
        extra: The extra vectors of its chunks.
    """

    def __init__(
        self,
        engine: sa.Engine,
        space: Space,
        encoder: Callable[[], Encoder],
        progress: Progress | None = None,
        extra: Sequence[ExtraVectors] = (),
    ) -> None:
        self.engine, self.collection = engine, space.attribute
        self._space, self._encoder = space, encoder
        self._progress, self._extra = progress, extra
        self._dimensions, self._precomputed = space.dimensions, space.revision == REVISION
        self._indexed = indexed_of(space)
        self.report = Report()
        self._accepted, self._refused = SeenIds(), SeenIds()
        self._without_language: list[WithoutLanguage] = []

    def run(self, records: Iterable[Record | BadRecord]) -> Report:
        """Store the records; return what was done."""
        with (
            closing(self.connected()) as reader,
            closing(self.connected()) as writer,
            ThreadPoolExecutor(1) as ahead,
            ThreadPoolExecutor(1) as behind,
        ):
            compared: Future[Compared] | None = None
            written: Future[Report] | None = None
            for batch in chain(self._batches(records), [None]):  # one more round, for the last batch compared
                following = ahead.submit(self.compare, batch, reader) if batch else None
                if compared:
                    documents = compared.result()
                    self._refuse(documents.refused)
                    new = self.encode(documents)
                    self.report.add(documents.batch.count(new))
                    self._count(written)
                    written = behind.submit(self.write, documents, new, writer)
                compared = following
            self._count(written)
            writer.flush()
        self._forget()
        return self.report

    def _refuse(self, refused: Sequence[BadRecord]) -> None:
        for record in refused:
            self.report.reject(record)

    def met(self, external_id: str) -> bool:
        """Whether a record of this run had this id, good or bad."""
        return external_id in self._accepted or external_id in self._refused

    def require_languages(self) -> None:
        """Say where the collection's expression of the language did not work.

        Raises:
            InvalidFilter: It did not for some documents, which are not stored.
        """
        if self._without_language:
            raise InvalidFilter(
                f"language_by {self._space.language_by} does not work for a document: "
                f"{self._without_language[0].error} ({self._without_language[0].origin}); "
                f"{len(self._without_language)} such documents are not stored, the others are; "
                "mend them and index again"
            )

    def connected(self) -> Writer:
        """Return what reads and writes over a connection of its own; close it."""
        return Writer(self.engine, self._space)

    def write(self, compared: Compared, new: Mapping[bytes, Vector], writer: Writer) -> Report:
        """Write documents, and keep what was made; where somebody else was quicker, compare and encode them again."""
        report = Report()
        if not compared.documents:
            return report
        for _ in range(MOST_ROUNDS):
            if compared.batch.rows:
                with self.engine.begin() as connection:  # before they are stored: what is stopped between is not lost
                    compared.batch.claim(connection, self._encoder)
                    if new:
                        cache_vectors(connection, self._encoder(), new)
            written, changed = writer.write(compared.documents)
            report.add(written)
            if not changed:
                return report
            compared = self.compare([(document.record, document.metadata) for document in changed], writer)
            new = self.encode(compared)
        raise TransactionConflict(
            f"document {compared.documents[0].record.external_id!r} is another one whenever it is stored; a trigger of "
            "neural.documents changes or drops it, or other processes change it all the time"
        )

    def _count(self, writing: Future[Report] | None) -> None:
        """Wait for a batch to be written, and report it."""
        if writing is None:
            return
        written = writing.result()
        self.report.add(written)
        del self.report.bad[REPORTED:]
        self._without_language += [bad for bad in written.bad if isinstance(bad, WithoutLanguage)]
        if self._progress:
            self._progress(self.report)

    def _batches(self, records: Iterable[Record | BadRecord]) -> Iterator[list[_Accepted]]:
        """Group good records; of several with one external id, the last of a batch wins."""
        batch: dict[str, _Accepted] = {}
        to_encode = characters = pictured = 0
        for position, record in enumerate(records, start=1):
            if position % YIELD_EVERY == 0:
                time.sleep(0)
            metadata = self._checked(record)
            if isinstance(metadata, BadRecord):
                if isinstance(record, Record) and isinstance(record.external_id, str):
                    self._refused.add(record.external_id)
                self.report.reject(metadata if metadata.origin else replace(metadata, origin=f"item {position}"))
                continue
            assert isinstance(record, Record)
            self.report.replaced += self._accepted.add(record.external_id)
            batch.pop(record.external_id, None)
            batch[record.external_id] = (record, metadata)
            to_encode += record.embedding is None
            characters += len(record.content) + len(record.title) + len(metadata)
            pictured += 0 if record.data is None else record.body.size
            full = characters >= BATCH_CHARACTERS or pictured >= BATCH_BYTES
            if len(batch) >= BATCH_RECORDS or to_encode >= BATCH_ROWS or full:
                yield list(batch.values())
                batch, to_encode, characters, pictured = {}, 0, 0, 0
        if batch:
            yield list(batch.values())

    def _checked(self, record: Record | BadRecord) -> str | BadRecord:
        """Return the record's metadata as JSON, or what is wrong with it, for PostgreSQL or for the space."""
        if isinstance(record, BadRecord):
            return record
        if refused := mistyped(record):
            return refused
        vector, dimensions = record.embedding, self._dimensions
        if vector is None:
            if self._precomputed:
                return BadRecord(record.origin, f"no embedding; {self._space.encoder} needs {dimensions} numbers")
            try:
                require_chunker(record.modality)
            except UnsupportedContent as error:
                return BadRecord(record.origin, str(error))
        elif vector.shape != (dimensions,):
            found = " x ".join(map(str, vector.shape))
            return BadRecord(
                record.origin, f"embedding has {found} numbers, expected {dimensions} as in the collection"
            )
        elif problem := self._indexed.unfit(vector):
            return BadRecord(record.origin, f"embedding {problem}")
        return check(record)

    def compare(self, accepted: Sequence[_Accepted], reader: Writer) -> Compared:
        """Cut the documents that are new or whose content changed; look up the vectors they can keep."""
        stored = reader.compared([record.external_id for record, _ in accepted])
        documents, refused = [], []
        for record, metadata in accepted:
            try:
                documents.append(self._document(record, metadata, stored[record.external_id]))
            except UnsupportedContent as error:
                refused.append(BadRecord(record.origin or record.external_id, str(error)))
        rows = [document.row for document in documents if document.row.chunks is not None]
        batch = Batch(reader.tables, rows, self._extra)
        batch.look_up(self.engine)
        if not any(batch.chunks):
            return Compared(documents, batch, {}, refused)
        with self.engine.begin() as connection:
            return Compared(documents, batch, cached_or_known(connection, self._encoder, [batch]), refused)

    def _document(self, record: Record, metadata: str, known: Stored) -> IncomingDocument:
        id_, new, stored, seconds = known
        body = record.body if record.embedding is not None else body_for(self._space, record.body, self._encoder)
        if [*map(list, body.seconds)] != written_seconds(seconds):  # its chunks say when they were spoken
            stored = None
        source = SourceRow(f"[{id_}]", (id_,), body, stored)
        if record.embedding is None and body.data is None and body.modality in BY_DATA:
            if stored is not None:  # as it was read back from a collection
                return IncomingDocument(record, metadata, new, EncodedRow(source, stored))
            require_accepted(body.modality, self._encoder())
            source = replace(source, body=with_data(body))
        if record.embedding is None:
            return IncomingDocument(record, metadata, new, cut(self._space, source, self._encoder))
        row = EncodedRow(source, source_hash(self._space, source, record.embedding.tobytes()), precomputed=True)
        if row.source_hash != stored:
            text = record.content or record.title
            row.chunks = [Chunk(text, {"content": [0, len(record.content)]}, text, row.source_hash)]
            row.vectors = record.embedding[np.newaxis]
        return IncomingDocument(record, metadata, new, row)

    def encode(self, compared: Compared) -> dict[bytes, Vector]:
        """Encode, in one call for the whole batch, the chunks that have no vector yet; equal ones once."""
        batch = compared.batch
        new = encoded(self._encoder, [batch], compared.found)
        batch.give({**compared.found, **new})
        batch.add_extra(self.engine)
        return new

    def _forget(self) -> None:
        """Remove old vectors once in a while, as workers do: there may be none."""
        if random.random() < self.report.chunks_encoded / FORGET_EVERY:
            with self.engine.begin() as connection:
                evict(connection)


class SeenIds:
    """The external ids that a run has met, in 8 bytes each: millions fit in memory.

    Two ids in a pair of ten thousand million million are taken for one another.
    """

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._sorted: list[NDArray[np.int64]] = []

    def add(self, external_id: str) -> bool:
        """Add one; return whether it had been met before."""
        known = external_id in self
        self._new.add(hash(external_id))
        if len(self._new) >= BATCH_RECORDS:
            self._settle()
        return known

    def __contains__(self, external_id: str) -> bool:
        number = hash(external_id)
        return number in self._new or any(_has(numbers, number) for numbers in self._sorted)

    def _settle(self) -> None:
        """Merge arrays of like length, so that there are never more than a few."""
        merged = np.array(sorted(self._new), dtype=np.int64)
        self._new = set()
        while self._sorted and len(self._sorted[-1]) <= 2 * len(merged):
            merged = np.union1d(self._sorted.pop(), merged)
        self._sorted.append(merged)


def _has(numbers: NDArray[np.int64], number: int) -> bool:
    place = int(numbers.searchsorted(number))
    return place < len(numbers) and int(numbers[place]) == number
