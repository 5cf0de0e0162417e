"""From what a caller gives to be indexed to records, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pgneural import load
from pgneural.store.schema import Document
from pgneural.types import BadRecord, Record

Indexable: TypeAlias = Record | Document | Mapping[str, Any] | BadRecord | str | Path


def records_of(items: Indexable | Iterable[Indexable]) -> Iterator[Record | BadRecord]:
    """Read paths, records, mappings and documents; what is none of these is a bad record."""
    one = isinstance(items, (str, Path, Record, BadRecord, Document, Mapping))
    many: Iterable[Any] = [items] if one else items  # type: ignore[assignment]
    for position, item in enumerate(many, start=1):
        if isinstance(item, Record):
            yield item
        elif isinstance(item, (str, Path)):
            yield from load.read([item])
        else:
            yield _record(item, f"item {position}")


def _record(item: Any, origin: str) -> Record | BadRecord:
    if isinstance(item, Document):
        item = Record(
            external_id=item.external_id,
            content=item.content or "",
            title=item.title or "",
            metadata=item.metadata_ or {},
            uri=item.uri,
        )
    elif isinstance(item, Mapping):
        item = load.from_mapping(item, origin)
    if isinstance(item, (Record, BadRecord)):
        return item
    return BadRecord(origin, f"cannot index {type(item).__name__}; give a path, a mapping, a Record or a Document")
