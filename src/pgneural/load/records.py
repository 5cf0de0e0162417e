"""From a mapping of fields to a record, and what makes a record bad."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgneural.types import SAMPLING_RATE, BadRecord, Modality, Record, Vector

ID_FIELDS = ("_id", "id", "external_id")
TITLE_FIELDS = ("title",)
TEXT_FIELDS = ("text", "content", "body")
EMBEDDING_FIELD = "embedding"
METADATA_FIELD = "metadata"
MODALITY_FIELD = "modality"

ID_CHARACTERS = 600
"""A B-tree entry holds 2,704 bytes: the collection's name and four bytes a character."""


@dataclass(frozen=True)
class Fields:
    """Which fields of a CSV or JSONL file hold what; None takes the first usual name that is there."""

    id: str | None = None
    title: str | None = None
    text: str | None = None

    def find(self, names: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
        """Return the names of the id, title and text fields among those of a row."""
        return (
            self.id or next((name for name in ID_FIELDS if name in names), None),
            self.title or next((name for name in TITLE_FIELDS if name in names), None),
            self.text or next((name for name in TEXT_FIELDS if name in names), None),
        )


def from_mapping(
    row: Mapping[str, Any], origin: str, fields: Fields | None = None, *, default_id: str | None = None
) -> Record | BadRecord:
    """Turn one row into a record; fields without a meaning of their own become metadata.

    A field ``metadata`` that is an object is taken as it is (BEIR), the other fields are added to it.
    """
    id_field, title_field, text_field = (fields or Fields()).find(row)
    external_id = row.get(id_field) if id_field else default_id
    if external_id is None or external_id == "":
        expected = id_field or " or ".join(ID_FIELDS)
        return BadRecord(origin, f"no id; give each record a field {expected}, or name the field with --id-field")
    if isinstance(external_id, bool) or not isinstance(external_id, (str, int)):
        return BadRecord(origin, f"id is {_kind(external_id)}, expected a string or a whole number")
    chosen = {id_field, title_field, text_field}
    metadata = row.get(METADATA_FIELD, {}) if METADATA_FIELD not in chosen else {}
    if not isinstance(metadata, Mapping):
        return BadRecord(origin, f"metadata is {_kind(metadata)}, expected an object")
    embedding = _embedding(row.get(EMBEDDING_FIELD) if EMBEDDING_FIELD not in chosen else None, origin)
    if isinstance(embedding, BadRecord):
        return embedding
    modality = _modality(row)
    taken = {*chosen, METADATA_FIELD, "uri", EMBEDDING_FIELD}
    taken |= {MODALITY_FIELD} if modality is not Modality.TEXT else set()
    rest = {key: value for key, value in row.items() if key not in taken}
    for named in (fields.title, fields.text) if fields else ():
        if named and named not in row:
            return BadRecord(origin, f"no field {named}; the fields are {', '.join(map(str, row))}")
    title = row.get(title_field) if title_field else ""
    content = row.get(text_field) if text_field else ""
    uri = row.get("uri")
    for name, value in ((title_field, title), (text_field, content), ("uri", uri)):
        if value is not None and not isinstance(value, str):
            return BadRecord(origin, f"field {name} is {_kind(value)}, expected a string")
    return Record(
        external_id=str(external_id),
        title=title or "",
        content=content or "",
        metadata={**metadata, **rest},
        uri=uri,
        modality=modality,
        embedding=embedding,
        origin=origin,
    )


def _modality(row: Mapping[str, Any]) -> Modality:
    """Return of which kind a document is that was exported: what is no text has its uri; else it is metadata."""
    told = row.get(MODALITY_FIELD)
    if isinstance(told, str) and told in tuple(Modality) and isinstance(row.get("uri"), str):
        return Modality(told)
    return Modality.TEXT


def mistyped(record: Record) -> BadRecord | None:
    """Name the first field of a record made in Python that is not what it should be."""
    for name, value in (("id", record.external_id), ("title", record.title), ("text", record.content)):
        if not isinstance(value, str):
            return BadRecord(record.origin, f"{name} is {type(value).__name__}, expected str")
    if record.embedding is not None and getattr(record.embedding, "dtype", None) != np.float32:
        return BadRecord(record.origin, f"embedding is {_array(record.embedding)}, expected a float32 array")
    if record.modality is Modality.TEXT and record.data is not None:
        return BadRecord(record.origin, "it has data, but its modality is text; say modality=Modality.IMAGE")
    if record.data is not None and record.modality in _DATA:
        is_one, expected = _DATA[record.modality]
        if not is_one(record.data):
            return BadRecord(record.origin, f"data is {_array(record.data)}, expected {expected}")
    return None


def is_picture(value: object) -> bool:
    """Whether a value is the pixels of a picture: uint8, shape (height, width, 3), at least one."""
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape[2:] == (3,) and value.size > 0


def is_sound(value: object) -> bool:
    """Whether a value is the samples of a sound: int16, shape (n,), at least one."""
    return isinstance(value, np.ndarray) and value.dtype == np.int16 and value.ndim == 1 and value.size > 0


def are_views(value: object) -> bool:
    """Whether a value is pictures of a mesh: uint8, shape (views, height, width, 3), at least one."""
    return isinstance(value, np.ndarray) and value.ndim == 4 and len(value) > 0 and is_picture(value[0])


_DATA: Mapping[Modality, tuple[Callable[[object], bool], str]] = {
    Modality.IMAGE: (is_picture, "uint8 of shape (height, width, 3)"),
    Modality.MESH: (are_views, "uint8 of shape (views, height, width, 3)"),
    Modality.AUDIO: (is_sound, f"int16 of shape (n,), {SAMPLING_RATE:,} a second"),
}
"""What the data of a record is, by its modality."""


def _array(value: Any) -> str:
    return f"an array of {value.dtype}, shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def check(record: Record) -> str | BadRecord:
    """Return the record's metadata as JSON text, or what keeps PostgreSQL from storing the record as it is."""
    if not record.external_id:
        return BadRecord(record.origin, "no id; give each record a non-empty id")
    if len(record.external_id) > ID_CHARACTERS:
        length = len(record.external_id)
        return BadRecord(record.origin, f"the id has {length} characters, at most {ID_CHARACTERS} are indexable")
    if record.embedding is None and record.body.empty:
        remedy = "give it a title or a text" if record.modality is Modality.TEXT else "give it as data"
        return BadRecord(record.origin, f"document {record.external_id!r} has no {record.modality}; {remedy}")
    try:
        metadata = _JSON.encode(record.metadata if type(record.metadata) is dict else dict(record.metadata))
    except TypeError as error:
        return BadRecord(record.origin, f"metadata of document {record.external_id!r} is not JSON: {error}")
    except (ValueError, RecursionError):
        return BadRecord(record.origin, f"metadata of document {record.external_id!r} has NaN, Infinity or a cycle")
    return _unstorable(record, metadata) or metadata


_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _unstorable(record: Record, metadata: str) -> BadRecord | None:
    """Name the first field that is not a PostgreSQL text."""
    for name, text in (
        ("id", record.external_id),
        ("title", record.title),
        ("text", record.content),
        ("uri", record.uri or ""),
    ):
        if problem := _problem(text, text.find("\0")):
            return BadRecord(record.origin, f"the {name} {problem}")
    if "\\u0000" not in metadata and metadata.isascii():
        return None
    escaped = _ESCAPED_NUL.search(metadata)
    problem = _problem(metadata, escaped.end() - len("\\u0000") if escaped else -1)
    return BadRecord(record.origin, f"the metadata {problem}") if problem else None


def _problem(text: str, nul: int) -> str | None:
    if nul >= 0:
        return f"has a NUL byte at character {nul}, which PostgreSQL cannot store; remove it"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half of a surrogate pair U+{code:04X}"
        return f"has {what} at character {error.start}, which is not UTF-8; convert it"
    return None


def _embedding(value: Any, origin: str) -> Vector | BadRecord | None:
    if value is None:
        return None
    try:
        with np.errstate(over="ignore"):  # too large becomes infinite, and is refused as such
            vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return BadRecord(origin, f"embedding is {_kind(value)}, expected a list of numbers")
    if vector.ndim != 1 or not len(vector):
        return BadRecord(origin, f"embedding has shape {vector.shape}, expected a list of numbers")
    return vector


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
