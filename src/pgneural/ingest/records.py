"""From what a caller gives to be indexed to records, one at a time; and which stored documents are gone from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from pgneural import load
from pgneural.errors import PgneuralError, RefusedRecords
from pgneural.ingest.documents import Ingest
from pgneural.report import Report
from pgneural.store.pruning import prune, stored_below
from pgneural.store.schema import Document
from pgneural.types import BadRecord, Media, Modality, Record

Indexable: TypeAlias = Record | Document | Mapping[str, Any] | BadRecord | str | Path


class Incoming(Iterator[Record | BadRecord]):
    """Reads paths, records, mappings and documents; what is none of these is a bad record.

    Args:
        items: One of them, several, or what `load.read` returned.
        follow_links: Of paths: whether to read also what symbolic links lead to.
        selection: What of folders is read.
        accepts: Tells which kinds of content the encoder accepts.
    """

    def __init__(
        self,
        items: Indexable | Iterable[Indexable],
        *,
        follow_links: bool = False,
        selection: load.Selection | None = None,
        accepts: Callable[[Modality], bool] = lambda _: True,
    ) -> None:
        own = items if isinstance(items, load.Reading) else None
        self._reading = own or load.read([], follow_links=follow_links, selection=selection)
        self._reading.accepts = accepts
        self._records = items if isinstance(items, load.Reading) else self._of(items)

    def __next__(self) -> Record | BadRecord:
        """Return the next record."""
        return next(self._records)

    def finish(self, ingest: Ingest, since: Any, *, refuse: bool) -> Report:
        """After a run: tell what was not read, delete what is gone, and raise what is to be raised; return the report.

        Args:
            ingest: The run.
            since: Its beginning, by the server: what was stored later is never deleted. None deletes nothing.
            refuse: Whether bad records are an error; then nothing is deleted, either.

        Raises:
            InvalidFilter: The collection's expression of the language does not work for a document.
            RefusedRecords: There were bad records; it has the report.
        """
        report = ingest.report
        report.skipped, report.skipped_first = dict(self._reading.left_out.counts), self._reading.left_out.first
        ingest.require_languages()
        if report.rejected and refuse:
            error = RefusedRecords(
                f"{report.rejected} bad records, the first: {report.bad[0]}; the other {report.documents} are stored"
            )
            error.report = report
            raise error
        if since is not None:
            stored = stored_below(ingest.engine, ingest.collection, self._reading.bases, since)
            gone = [each for each in stored if self._reading.gone(each.external_id, each.uri, ingest.met)]
            report.pruned = prune(ingest.engine, ingest.collection, gone, since)
        return report

    def _of(self, items: Indexable | Iterable[Indexable]) -> Iterator[Record | BadRecord]:
        one = isinstance(items, (str, Path, Record, BadRecord, Document, Mapping))
        many: Iterable[Any] = [items] if one else items  # type: ignore[assignment]
        for position, item in enumerate(many, start=1):
            if isinstance(item, Record):
                yield item
            elif isinstance(item, (str, Path)):
                yield from self._reading.of(str(item))
            else:
                yield _record(item, f"item {position}")


MEDIA_FIELDS = (Modality.IMAGE, Modality.MESH, Modality.AUDIO)


def _of_mapping(item: Mapping[str, Any], origin: str) -> Record | BadRecord:
    """Read a mapping.

    A picture in field ``image``, a mesh in ``mesh``, or a sound in ``audio``, is what it is found by; anything else
    there is metadata.
    """
    fields = [field for field in MEDIA_FIELDS if load.is_readable(item.get(field))]
    if not fields:
        return load.from_mapping(item, origin)
    if len(fields) > 1:
        return BadRecord(origin, f"it has fields {' and '.join(fields)}; give it as one of them")
    (field,) = fields
    record = load.from_mapping({name: value for name, value in item.items() if name != field}, origin)
    if isinstance(record, BadRecord):
        return record
    try:
        read = load.read_question(item[field])
    except PgneuralError as error:
        return BadRecord(origin, f"{field}: {error}")
    if not isinstance(read, Media) or read.modality is not field:
        found = read.modality if isinstance(read, Media) else Modality.TEXT
        return BadRecord(origin, f"field {field} has {found}; give it as field {'text' if found == 'text' else found}")
    return replace(record, data=read.data, modality=field)


def _record(item: Any, origin: str) -> Record | BadRecord:
    if isinstance(item, Document):
        item = Record(
            external_id=item.external_id,
            content=item.content or "",
            title=item.title or "",
            metadata=item.metadata_ or {},
            uri=item.uri,
            modality=Modality(item.modality or Modality.TEXT),
        )
    elif isinstance(item, Mapping):
        item = _of_mapping(item, origin)
    if isinstance(item, (Record, BadRecord)):
        return item
    return BadRecord(origin, f"cannot index {type(item).__name__}; give a path, a mapping, a Record or a Document")
