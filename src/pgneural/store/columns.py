"""Column types for vectors in a user's own tables: pgvector's, but sent in binary.

Writing vectors as text takes most of the time of an insert (`bench orm` compares both). A parameter takes its type from
the cast around it, so the server needs to know no more than that. Drivers other than psycopg get the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from pgvector import sqlalchemy as theirs

from pgneural.errors import DimensionMismatch
from pgneural.store.vectors import Storage


@dataclass(frozen=True, slots=True)
class Stored:
    """A vector on its way into a column, in pgvector's binary form."""

    binary: bytes


class _StoredDumper(psycopg.adapt.Dumper):
    format = psycopg.pq.Format.BINARY
    oid = 0  # of the cast around it

    def dump(self, obj: Stored) -> bytes:
        return obj.binary


class _Binary:
    """What both types do otherwise than pgvector's."""

    render_bind_cast = True
    storage: Storage
    dim: int | None

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim)  # type: ignore[call-arg]
        psycopg.adapters.register_dumper(Stored, _StoredDumper)  # for connections that are made from now on

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """Return how a value is sent."""
        if dialect.driver not in ("psycopg", "psycopg_async"):
            return super().bind_processor(dialect)  # type: ignore[misc]
        return self._sent

    def _sent(self, value: Any) -> Stored | None:
        if value is None:
            return None
        if isinstance(value, str):
            value = value.strip("[]").split(",")
        vector = np.asarray(value if isinstance(value, (list, np.ndarray)) else list(value), dtype=np.float32)
        if vector.ndim != 1 or self.dim not in (None, len(vector)):
            raise DimensionMismatch(f"the value has shape {vector.shape}, expected a vector of {self.dim} numbers")
        return Stored(self.storage.to_binary(vector[np.newaxis])[0])


class VECTOR(_Binary, theirs.VECTOR):
    """A column of vectors of 32-bit numbers; as ``pgvector.sqlalchemy.VECTOR``.

    Example:
        >>> class Photo(Base):
        ...     __tablename__ = "photos"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     embedding = mapped_column(VECTOR(384))
    """

    cache_ok = True
    storage = Storage.VECTOR


class HALFVEC(_Binary, theirs.HALFVEC):
    """A column of vectors of 16-bit numbers; as ``pgvector.sqlalchemy.HALFVEC``."""

    cache_ok = True
    storage = Storage.HALFVEC
