"""Vectors as pgvector keeps and indexes them: column types, binary forms, and the kinds of index.

A chunk table keeps whole vectors. Its index may keep less of each: numbers of 16 bits, only the first dimensions,
or one bit for each. A search scans the index by what the index has and ranks what it finds by the whole vectors.
"""

from __future__ import annotations

import enum
import functools
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import psycopg
import sqlalchemy as sa
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from psycopg.abc import AdaptContext
from sqlalchemy.dialects.postgresql import ARRAY

from pgneural.errors import InvalidIndex
from pgneural.types import Distance, Vector, has_direction

EF_CONSTRUCTION = 128
"""Candidates kept while a row is linked into the HNSW graph. Twice pgvector's default: a longer build
leaves fewer rows that no search can reach, and every search then finds more for the same work (`bench filter`)."""

MAX_LISTS = 32_768
"""Of an IVFFlat index; pgvector's limit."""

DEFAULT_LISTS = 100
"""Of an IVFFlat index that was made without saying how many; pgvector's default."""


WIDTHS = {"vector": 4.0, "halfvec": 2.0, "bit": 1 / 8, "sparsevec": 8.0}
"""The bytes of a dimension, by type; of a sparse vector, of one that is not 0."""

SPARSE_NUMBERS = 1000
"""How many dimensions other than 0 of a sparse vector pgvector indexes."""


def sparse_text(vector: Vector) -> str:
    """Return a vector, shape (d,), in pgvector's sparse form; beyond `SPARSE_NUMBERS` only the largest numbers."""
    places = np.flatnonzero(vector)
    if len(places) > SPARSE_NUMBERS:
        places = np.sort(places[np.argsort(-np.abs(vector[places]), kind="stable")[:SPARSE_NUMBERS]])
    pairs = ",".join(f"{place + 1}:{vector[place]:.7g}" for place in places)
    return f"{{{pairs}}}/{len(vector)}"


LARGEST_HALF = 65504
"""The largest number of 16 bits."""


class Reals:
    """A query vector on its way to the server, which reads it as ``real[]`` in binary."""

    def __init__(self, vector: Vector) -> None:
        self.vector = vector

    def __str__(self) -> str:
        return "{" + ",".join(map(str, self.vector.tolist())) + "}"


class ReadableReals(Reals, str):
    """The same for a connection that was not taught to send it: there it is the text of an array."""

    def __new__(cls, vector: Vector) -> Self:
        """Make it, with its text."""
        return str.__new__(cls, Reals(vector))

    __str__ = str.__str__


class _Sent(sa.types.UserDefinedType[Any]):
    """The type of a parameter that is a query vector, in the form that the driver takes."""

    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """Return how a value is sent."""
        if dialect.driver == "psycopg":
            return None
        return _listed if dialect.driver == "asyncpg" else _text


def _listed(value: Any) -> Any:
    return value.vector.tolist() if isinstance(value, Reals) else value


def _text(value: Any) -> str:
    return str(value)


SENT = _Sent()


class _RealsDumper(psycopg.adapt.Dumper):
    format = psycopg.pq.Format.BINARY
    oid = 1021  # real[]

    def dump(self, obj: Reals) -> bytes:
        """Return an array of one dimension: header, and for each number its length and itself."""
        numbers = np.empty(len(obj.vector), dtype=[("length", ">i4"), ("number", ">f4")])
        numbers["length"], numbers["number"] = 4, obj.vector
        return struct.pack(">iiiii", 1, 0, 700, len(obj.vector), 1) + numbers.tobytes()


class _RealsTextDumper(psycopg.adapt.Dumper):
    oid = 1021

    def dump(self, obj: Reals) -> bytes:
        return str(obj).encode()


def register(context: AdaptContext | None = None) -> None:
    """Teach a connection to send query vectors; None for all connections that are made from now on."""
    adapters = context.adapters if context else psycopg.adapters
    for dumper in (_RealsTextDumper, _RealsDumper):
        for kind in (Reals, ReadableReals):
            adapters.register_dumper(kind, dumper)


def teach(connection: sa.Connection) -> None:
    """Teach a connection of the user's, made before `register` was called, to send query vectors."""
    driver = connection.connection.driver_connection
    if isinstance(driver, psycopg.BaseConnection) and not connection.info.get("pgneural taught"):
        register(driver)
        connection.info["pgneural taught"] = True


_BRACKETS = str.maketrans("{}", "[]")
"""From the text of an array to that of a vector."""


class Storage(enum.StrEnum):
    """The type of the column that keeps the vectors."""

    VECTOR = "vector"
    HALFVEC = "halfvec"
    BIT = "bit"
    SPARSEVEC = "sparsevec"

    def type(self, dimensions: int) -> Any:
        """Return the SQLAlchemy type."""
        return {"vector": VECTOR, "halfvec": HALFVEC, "bit": BIT, "sparsevec": SPARSEVEC}[self.value](dimensions)

    @property
    def width(self) -> float:
        """The bytes of a dimension."""
        return WIDTHS[self.value]

    def bound(self, vector: Vector) -> Any:
        """Return a query vector, shape (d,), as the value of a parameter of `asked`."""
        if self is Storage.BIT:
            return "".join("1" if bit > 0 else "0" for bit in vector)
        return sparse_text(vector) if self is Storage.SPARSEVEC else Reals(vector)

    def readable(self, vector: Vector) -> Any:
        """Return the same for a connection that is not ours."""
        bound = self.bound(vector)
        return ReadableReals(vector) if isinstance(bound, Reals) else bound

    def query_value(self, parameter: sa.ColumnElement[Any], dimensions: int) -> sa.ColumnElement[Any]:
        """Return the parameter of a query vector as a vector."""
        sent = sa.Text() if self in (Storage.BIT, Storage.SPARSEVEC) else ARRAY(sa.REAL)
        return sa.cast(sa.cast(parameter, sent), self.type(dimensions))

    def to_text(self, vector: Vector) -> str:
        """Return a vector, shape (d,), as the server writes one of the type."""
        return str(self.bound(vector)).translate(_BRACKETS) if self is not Storage.SPARSEVEC else sparse_text(vector)

    def parse(self, value: Any) -> Vector:
        """Return a vector, shape (d,), as a query gives it."""
        if self is Storage.BIT and hasattr(value, "as_string"):  # of asyncpg
            value = value.as_string().replace(" ", "")
        bits = self is Storage.BIT and isinstance(value, str)
        return np.array([character == "1" for character in value] if bits else value, dtype=np.float32)

    def to_binary(self, vectors: Vector) -> list[bytes]:
        """Return each row of an array, shape (n, d), in the type's binary form.

        vector and halfvec: the length, two zero bytes, big-endian floats; bit: the length, the bits from the left.
        """
        if self is Storage.BIT:
            header = struct.pack(">i", vectors.shape[1])
            return [header + row.tobytes() for row in np.packbits(vectors > 0, axis=1)]
        header = struct.pack(">HH", vectors.shape[1], 0)
        numbers = ">f4" if self is Storage.VECTOR else ">f2"
        width = int(numbers[-1]) * vectors.shape[1]
        data = vectors.astype(numbers).tobytes()
        return [header + data[start : start + width] for start in range(0, len(data), width)]

    def from_binary(self, data: bytes) -> Vector:
        """Return a vector, shape (d,), from the type's binary form."""
        if self is Storage.BIT:
            bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8, offset=4))
            return bits[: struct.unpack_from(">i", data)[0]].astype(np.float32)
        return np.frombuffer(data, dtype=">f4" if self is Storage.VECTOR else ">f2", offset=4).astype(np.float32)


MOST_DIMENSIONS = {Storage.VECTOR: 16_000, Storage.HALFVEC: 16_000, Storage.BIT: 64_000}
"""What a column of each type holds; of bits, what an index takes."""


class Method(enum.StrEnum):
    """How an index finds near vectors."""

    HNSW = "hnsw"
    IVFFLAT = "ivfflat"
    NONE = "none"


class Precision(enum.StrEnum):
    """What an index keeps of each number."""

    FULL = "full"
    HALF = "half"
    BINARY = "binary"


MOST_INDEXED = {Precision.FULL: 2000, Precision.HALF: 4000, Precision.BINARY: 64_000}
"""The most dimensions that pgvector indexes."""


_RANGES = {"m": (2, 100), "ef_construction": (4, 1000), "lists": (1, MAX_LISTS)}
"""Of the options of an index; pgvector's."""


@dataclass(frozen=True)
class VectorIndex:
    """How the vectors of a space are indexed.

    Attributes:
        method: ``hnsw``, ``ivfflat``, or ``none`` to compare all rows one by one.
        precision: ``half`` finds as well as ``full`` in half the memory (`bench indexes`). ``binary`` keeps one bit
            a number, for vectors of a thousand dimensions and more.
        dimensions: Only the first so many, for models that are trained for it (Matryoshka); None for all.
        options: Of the access method: ``m`` and ``ef_construction``, or ``lists``.
    """

    method: Method | Literal["hnsw", "ivfflat", "none"] = Method.HNSW
    precision: Precision | Literal["full", "half", "binary"] = Precision.HALF
    dimensions: int | None = None
    options: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take names for what they name, and refuse others."""
        for name, kind in (("method", Method), ("precision", Precision)):
            if getattr(self, name) not in tuple(kind):
                raise InvalidIndex(f"{name} is {getattr(self, name)!r}, expected {', '.join(kind)}")
            object.__setattr__(self, name, kind(getattr(self, name)))
        known = {"lists"} if self.method is Method.IVFFLAT else {"m", "ef_construction"}
        if unknown := set(self.options) - known:
            raise InvalidIndex(f"{self.method} has no option {min(unknown)!r}; it has {', '.join(sorted(known))}")
        for name, value in self.options.items():
            least, most = _RANGES[name]
            if not isinstance(value, int) or not least <= value <= most:
                raise InvalidIndex(f"{name} is {value!r}, expected {least} to {most}")
        if self.options.get("ef_construction", EF_CONSTRUCTION * 2) < 2 * self.options.get("m", 2):
            raise InvalidIndex("ef_construction must be at least twice m; raise it, or leave it out")
        if self.dimensions is not None and self.dimensions < 1:
            raise InvalidIndex(f"dimensions is {self.dimensions}, expected at least 1")

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self:
        """Read it from the catalog."""
        return cls(spec["method"], spec["precision"], spec["dimensions"], spec["options"])

    def as_json(self) -> dict[str, Any]:
        """Return it for the catalog."""
        return asdict(self)

    @property
    def approximate(self) -> bool:
        """Whether the order by the index is not that by the whole vectors, beyond rounding."""
        return self.precision is Precision.BINARY or self.dimensions is not None

    @property
    def lists(self) -> int:
        """How many lists an IVFFlat index has: what was asked for, or chosen by its build, or pgvector's default."""
        return self.options.get("lists", DEFAULT_LISTS)

    @property
    def stated(self) -> Mapping[str, int]:
        """The options that the index is created with, before it is known over how many rows."""
        if self.method is not Method.HNSW:
            return self.options
        usual = max(EF_CONSTRUCTION, 2 * self.options.get("m", 16))
        return {"ef_construction": usual, **self.options}

    def over(self, rows: int) -> Self:
        """Return it with the number of lists that pgvector advises for so many rows, where none was asked for."""
        if self.method is not Method.IVFFLAT or "lists" in self.options:
            return self
        advised = rows // 1000 if rows <= 1_000_000 else math.isqrt(rows)
        return replace(self, options={"lists": min(max(advised, 10), MAX_LISTS)})


@dataclass(frozen=True)
class Indexed:
    """An index together with the vectors that it is over: what it scans by, and with what operator."""

    index: VectorIndex
    storage: Storage
    distance: Distance
    dimensions: int

    @property
    def vectors(self) -> tuple[Storage, Distance, int]:
        """What is said of the vectors themselves."""
        return self.storage, self.distance, self.dimensions

    @property
    def length(self) -> int:
        """How many dimensions the index keeps."""
        return self.index.dimensions or self.dimensions

    @functools.cached_property
    def type(self) -> str:
        """The pgvector type of what the index keeps."""
        if self.storage is Storage.SPARSEVEC:
            return "sparsevec"
        if self.storage is Storage.BIT or self.index.precision is Precision.BINARY:
            return "bit"
        half = self.storage is Storage.HALFVEC or self.index.precision is Precision.HALF
        return "halfvec" if half else "vector"

    @functools.cached_property
    def halved(self) -> bool:
        """Whether numbers are kept in 16 bits as they are, so that large ones cannot be kept."""
        return self.storage is Storage.HALFVEC or (self.type == "halfvec" and self.distance is not Distance.COSINE)

    def unfit(self, vector: Vector) -> str | None:
        """Say what makes a vector, shape (d,), one that cannot be stored, indexed or compared; None if nothing."""
        if self.storage is Storage.BIT:
            return None if np.isin(vector, (0, 1)).all() else "has other numbers than 0 and 1"
        if self.distance is Distance.COSINE:
            if not has_direction(vector):
                return "is zero or not finite, so it has no direction"
        elif not np.isfinite(vector).all():
            return "has numbers that are not finite"
        return self._unfit_in_half(vector) if self.halved else None

    def _unfit_in_half(self, vector: Vector) -> str | None:
        if np.abs(vector).max(initial=0) > LARGEST_HALF:
            return f"has numbers beyond {LARGEST_HALF}, the largest of halfvec"
        without = self.distance is Distance.COSINE and not has_direction(vector.astype(np.float16).astype(np.float32))
        return "is zero in the 16 bits of a halfvec, so it has no direction" if without else None

    @property
    def operator(self) -> str:
        """The operator that the index orders by."""
        binary = self.index.precision is Precision.BINARY and self.storage is not Storage.BIT
        return (Distance.HAMMING if binary else self.distance).operator

    @property
    def operator_class(self) -> str:
        """The operator class of the index."""
        if self.type == "bit":
            distance = self.distance if self.storage is Storage.BIT else Distance.HAMMING
            return f"bit_{distance}_ops"
        short = "ip" if self.distance is Distance.INNER_PRODUCT else self.distance
        return f"{self.type}_{short}_ops"

    def index_expression(self, vector: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return what the index keeps of a vector."""
        if self.length < self.dimensions:
            vector = sa.func.subvector(vector, sa.literal_column("1"), sa.literal_column(str(self.length)))
        if self.type == "bit" and self.storage is not Storage.BIT:
            vector = sa.func.binary_quantize(vector)
        elif self.type == self.storage and self.length == self.dimensions:
            return vector
        elif self.type == "halfvec" and self.distance is Distance.COSINE:
            vector = sa.func.l2_normalize(vector)  # 16 bits hold no large numbers
        return sa.cast(vector, Storage(self.type).type(self.length))

    def check(self) -> None:
        """Refuse what pgvector cannot index.

        Raises:
            InvalidIndex: With what it can.
        """
        index = self.index
        if index.method is Method.NONE:
            return
        if self.storage in (Storage.BIT, Storage.SPARSEVEC) and index.dimensions:
            raise InvalidIndex(f"vectors of type {self.storage} are indexed whole; leave the dimensions out")
        if self.storage is Storage.SPARSEVEC:
            if index.method is Method.IVFFLAT:
                raise InvalidIndex("ivfflat has no sparse vectors; use hnsw")
            return
        limit = MOST_INDEXED[_precision(self.type)]
        if not 0 < self.length <= self.dimensions:
            raise InvalidIndex(f"the vectors have {self.dimensions} dimensions, so an index cannot keep {self.length}")
        if self.length > limit:
            raise InvalidIndex(
                f"an index of {self.type} takes {limit:,} dimensions, but these vectors have {self.length:,}; "
                f"{_remedy(self.length)}"
            )
        if index.method is Method.IVFFLAT and self.operator in ("<+>", "<%>"):
            raise InvalidIndex(f"ivfflat has no distance {self.distance}; use hnsw")


def chosen(storage: Storage, distance: Distance, dimensions: int) -> VectorIndex:
    """Return the index for vectors that nobody chose one for.

    Half precision where only the direction counts, since 16 bits hold no large numbers; otherwise the finest that
    takes so many dimensions.
    """
    if storage is Storage.BIT:
        return VectorIndex(precision=Precision.FULL)
    order = (Precision.HALF,) if distance is Distance.COSINE or storage is Storage.HALFVEC else (Precision.FULL,)
    for precision in (*order, Precision.HALF, Precision.BINARY):
        if dimensions <= MOST_INDEXED[precision]:
            return VectorIndex(precision=precision)
    return VectorIndex(Method.NONE)


def reason(storage: Storage, dimensions: int) -> str | None:
    """Say why the chosen index is not a usual one; None where it is."""
    if storage is Storage.BIT or dimensions <= MOST_INDEXED[Precision.HALF]:
        return None
    fits = dimensions <= MOST_INDEXED[Precision.BINARY]
    what = "an index of one bit a number, ranked by the whole vectors" if fits else "no index"
    most = MOST_INDEXED[Precision.HALF]
    return f"pgvector indexes {most:,} dimensions, these vectors have {dimensions:,}: they get {what}"


def required_storage(distance: Distance, dimensions: int, storage: Storage | str | None = None) -> Storage:
    """Return the column type for vectors of a distance.

    Raises:
        InvalidIndex: The distance is of other vectors than the type, or they are too long for it.
    """
    bits = distance in (Distance.HAMMING, Distance.JACCARD)
    if storage is not None and storage not in MOST_DIMENSIONS:
        raise InvalidIndex(f"storage is {str(storage)!r}, expected {', '.join(MOST_DIMENSIONS)}")
    found = Storage(storage) if storage else Storage.BIT if bits else Storage.VECTOR
    if dimensions > MOST_DIMENSIONS[found]:
        raise InvalidIndex(f"a {found} holds {MOST_DIMENSIONS[found]:,} dimensions, these have {dimensions:,}")
    if bits != (found is Storage.BIT):
        raise InvalidIndex(f"distance {distance} is not one of {found} columns; leave the storage out")
    return found


def _precision(type_: str) -> Precision:
    return {"vector": Precision.FULL, "halfvec": Precision.HALF, "bit": Precision.BINARY}[type_]


def _remedy(dimensions: int) -> str:
    fitting = [precision for precision, limit in MOST_INDEXED.items() if dimensions <= limit]
    return f"choose precision {fitting[0]}, or fewer dimensions" if fitting else "keep fewer of them"
