"""The one way in: records are compared, chunked, encoded and written, a batch at a time.

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
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from pgneural.chunkers import Lengths, cut, require_chunker
from pgneural.errors import InvalidFilter, UnsupportedContent
from pgneural.extra_vectors import ExtraVectors, unstored
from pgneural.load import check, mistyped
from pgneural.store.schema import Space
from pgneural.store.space import indexed_of
from pgneural.store.space_tables import ExtraVector
from pgneural.store.vector_cache import cache_vectors, cached_vectors, evict
from pgneural.store.writer import ChangedMeanwhile, Encoded, Refused, Writer, Written
from pgneural.types import BadRecord, Chunk, Encoder, EncoderInput, Record, Vector, fingerprint

BATCH_RECORDS = 2048
"""Enough that what a transaction costs does not show."""

BATCH_TO_ENCODE = 512
"""Enough for batches of texts of like length, few enough to lose little when stopped."""

YIELD_EVERY = 32
"""After so many records the reading thread lets another have the interpreter: the thread that writes would
otherwise wait the interpreter's 5 ms for every block it sends, longer than the server has work for."""

BATCH_CHARACTERS = 1_000_000
"""Closes a batch of long documents early."""

FORGET_EVERY = 50_000
"""Old vectors are looked for about once in so many chunks."""

REPORTED = 1000
"""How many bad records are kept in a `Report`; all are counted."""

_NONE_KNOWN: Mapping[bytes, Vector] = {}

_Accepted = tuple[Record, str]
"""A record that can be stored, and its metadata as JSON."""


@dataclass
class Report:
    """What a run did.

    Attributes:
        inserted: How many documents are new.
        updated: How many have changed.
        unchanged: How many are as they were.
        rejected: How many records were bad.
        replaced: How many records were replaced by a later one of this run with the same id.
        pruned: How many documents were removed because their files, or their records in a file, are gone.
        chunks_encoded: How many chunks got a vector.
        chunks_reused: How many kept the one that they had.
        bad: The first `REPORTED` bad records.
        skipped: How many files and links were left out, by reason.
        skipped_first: The first few of each.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    replaced: int = 0
    pruned: int = 0
    chunks_encoded: int = 0
    chunks_reused: int = 0
    bad: list[BadRecord] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_first: dict[str, list[str]] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        """How many good records there were, those of one id in one batch counted once."""
        return self.inserted + self.updated + self.unchanged

    def reject(self, record: BadRecord) -> None:
        """Count a bad record."""
        self.rejected += 1
        if len(self.bad) < REPORTED:
            self.bad.append(record)


Progress = Callable[[Report], None]


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
        self._dimensions, self._precomputed = space.dimensions, space.revision == "given"
        self._indexed = indexed_of(space)
        self._cut = f"{space.revision} {space.max_tokens} {space.overlap}"
        self.report = Report()
        self._accepted, self._refused = SeenIds(), SeenIds()
        self._without_language: list[Refused] = []

    def run(self, records: Iterable[Record | BadRecord]) -> Report:
        """Store the records; return what was done."""
        with (
            closing(self.connected()) as reader,
            closing(self.connected()) as writer,
            ThreadPoolExecutor(1) as ahead,
            ThreadPoolExecutor(1) as behind,
        ):
            compared: Future[list[_Planned]] | None = None
            written: Future[Written] | None = None
            for batch in chain(self._batches(records), [None]):  # one more round, for the last batch compared
                following = ahead.submit(self.compare, batch, reader) if batch else None
                if compared:
                    planned = compared.result()
                    new = self.encode(planned)
                    self._count(written)
                    written = behind.submit(self.write, planned, new, writer)
                compared = following
            self._count(written)
            writer.flush()
        self._forget()
        return self.report

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
                f"{self._without_language[0].language_error} ({self._without_language[0].bad.origin}); "
                f"{len(self._without_language)} such documents are not stored, the others are; "
                "mend them and index again"
            )

    def connected(self) -> Writer:
        """Return what reads and writes over a connection of its own; close it."""
        return Writer(self.engine, self._space)

    def write(self, batch: Sequence[_Planned], new: dict[bytes, Vector], writer: Writer) -> Written:
        """Write a batch, and keep what was made; where somebody else was quicker, compare and encode it again."""
        while True:
            if new:
                with self.engine.begin() as connection:  # before they are stored: what is stopped between is not lost
                    cache_vectors(connection, self._encoder(), new)
            try:
                return writer.write([plan.encoded(new) for plan in batch])
            except ChangedMeanwhile:
                batch = self.compare([(plan.record, plan.metadata) for plan in batch], writer)
                new = self.encode(batch)

    def _count(self, writing: Future[Written] | None) -> None:
        """Wait for a batch to be written, and report it."""
        if writing is None:
            return
        written = writing.result()
        self.report.inserted += written.inserted
        self.report.updated += written.updated
        self.report.unchanged += written.unchanged
        for refused in written.refused:
            self.report.reject(refused.bad)
        self._without_language += [refused for refused in written.refused if refused.language_error]
        if self._progress:
            self._progress(self.report)

    def _batches(self, records: Iterable[Record | BadRecord]) -> Iterator[list[_Accepted]]:
        """Group good records; of several with one external id, the last of a batch wins."""
        batch: dict[str, _Accepted] = {}
        to_encode = characters = 0
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
            if len(batch) >= BATCH_RECORDS or to_encode >= BATCH_TO_ENCODE or characters >= BATCH_CHARACTERS:
                yield list(batch.values())
                batch, to_encode, characters = {}, 0, 0
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

    def compare(self, batch: Sequence[_Accepted], reader: Writer) -> list[_Planned]:
        """Cut the documents that are new or whose content changed; look up the vectors they can keep."""
        stored = reader.hashes([record.external_id for record, _ in batch])
        planned = [self._planned(record, metadata, stored.get(record.external_id)) for record, metadata in batch]
        changed = [p.record.external_id for p in planned if p.chunks is not None and p.record.external_id in stored]
        known = dict(reader.known(changed)) if changed else {}
        wanted = {hash_ for plan in planned for hash_ in plan.to_encode()} - known.keys()
        if wanted:
            with self.engine.begin() as connection:
                known |= cached_vectors(connection, self._encoder(), sorted(wanted))
        for plan in planned if known else ():
            plan.known = known
        return planned

    def _planned(self, record: Record, metadata: str, stored: bytes | None) -> _Planned:
        source_hash = self._source_hash(record)
        if source_hash == stored:
            return _Planned(record, metadata, source_hash, False, None, _NONE_KNOWN)
        if record.embedding is not None:
            text = record.content or record.title
            whole = Chunk(text, {"content": [0, len(record.content)]}, text, source_hash)
            return _Planned(record, metadata, source_hash, stored is None, [whole], _NONE_KNOWN)
        space = self._space
        chunks = cut(record.body, self._encoder(), Lengths(space.max_tokens, space.overlap))
        return _Planned(record, metadata, source_hash, stored is None, chunks, _NONE_KNOWN)

    def _source_hash(self, record: Record) -> bytes:
        vector = b"" if record.embedding is None else record.embedding.tobytes()
        return fingerprint(record.title, record.content, vector, self._cut)

    def encode(self, batch: Sequence[_Planned]) -> dict[bytes, Vector]:
        """Encode, in one call for the whole batch, the chunks that have no vector yet; equal ones once."""
        wanted = {hash_: text for plan in batch for hash_, text in plan.to_encode().items()}
        new: dict[bytes, Vector] = {}
        if wanted:
            new = dict(zip(wanted, self._encoder().encode_documents(list(wanted.values())), strict=True))
        self._add_extra(batch)
        self.report.chunks_encoded += len(new)
        self.report.chunks_reused += sum(plan.vectors for plan in batch) - len(new)
        return new

    def _add_extra(self, batch: Sequence[_Planned]) -> None:
        """Make the extra vectors of all chunks that are about to be stored."""
        by_id = {plan.record.external_id: plan for plan in batch}
        for extra in self._extra:
            chunks = [c for id_, plan in by_id.items() for c in unstored(id_, plan.record.title, plan.chunks or ())]
            if chunks:
                with self.engine.begin() as connection:
                    extra.claim(connection)
            for vector in extra.encode(chunks):
                by_id[vector.key].extra.setdefault(extra.space.kind, []).append(vector)

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


@dataclass(slots=True)
class _Planned:
    """A record with its chunks; without, where the stored ones are still right."""

    record: Record
    metadata: str
    source_hash: bytes
    new: bool
    chunks: list[Chunk] | None
    known: Mapping[bytes, Vector]
    extra: dict[str, list[ExtraVector]] = field(default_factory=dict)

    @property
    def vectors(self) -> int:
        """How many vectors of our making it gets."""
        return len(self.chunks or ()) if self.record.embedding is None else 0

    def to_encode(self) -> dict[bytes, EncoderInput]:
        """Return what has no vector yet, by its hash."""
        if self.record.embedding is not None:
            return {}
        return {chunk.hash: chunk.input for chunk in self.chunks or () if chunk.hash not in self.known}

    def encoded(self, new: Mapping[bytes, Vector]) -> Encoded:
        if self.chunks is None:
            return Encoded(self.record, self.metadata, self.source_hash, new=False)
        if self.record.embedding is not None:
            vectors = self.record.embedding[np.newaxis]
        else:
            vectors = np.stack([new[c.hash] if c.hash in new else self.known[c.hash] for c in self.chunks])
        return Encoded(self.record, self.metadata, self.source_hash, self.new, self.chunks, vectors, self.extra)
