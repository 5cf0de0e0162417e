"""Models and SQL define the same vector index: what one makes, the other would."""

from __future__ import annotations

import itertools
import json

import pytest
import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex

from pgneural import Database, VectorIndex
from pgneural.errors import InvalidIndex
from pgneural.store.tables import chunk_table, vector_index
from pgneural.store.vectors import Indexed, Method, Storage
from pgneural.types import Distance

METHODS = [
    VectorIndex(method, precision, dimensions, options)
    for method, options in (
        (Method.HNSW, {}),
        (Method.HNSW, {"m": 80}),
        (Method.HNSW, {"m": 8, "ef_construction": 40}),
        (Method.IVFFLAT, {"lists": 7}),
    )
    for precision in ("full", "half", "binary")
    for dimensions in (None, 32)
]


def every() -> list[Indexed]:
    """Return all kinds of index that pgvector has."""
    found = []
    for index, storage, distance in itertools.product(METHODS, Storage, Distance):
        indexed = Indexed(index, storage, distance, 64)
        if (storage is Storage.BIT) != (distance in (Distance.HAMMING, Distance.JACCARD)):
            continue
        try:
            indexed.check()
        except InvalidIndex:
            continue
        found.append(indexed)
    return found


def made(connection: sa.Connection, statement: str) -> str:
    """Return an index that a statement makes, as PostgreSQL writes it, and drop it."""
    connection.exec_driver_sql(statement.replace("%", "%%"))
    name = "neural.documents_notes_embedding_idx"
    definition = connection.scalar(sa.text("SELECT pg_get_indexdef(CAST(:name AS regclass))"), {"name": name})
    connection.exec_driver_sql(f"DROP INDEX {name}")
    return str(definition)


@pytest.mark.parametrize("storage", list(Storage))
def test_models_and_sql_define_the_same_index(db: Database, storage: Storage) -> None:
    source = sa.Table("documents", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True), schema="neural")
    kinds = [indexed for indexed in every() if indexed.storage is storage]
    assert len(kinds) > (5 if storage is Storage.BIT else 20)
    db.collection("notes", encoder="vectors:64")
    with db.engine.connect() as connection:
        chunks = chunk_table(source, "notes", 64, metadata=sa.MetaData(), storage=storage)
        connection.exec_driver_sql(
            f"ALTER TABLE neural.{chunks.name} ALTER embedding TYPE {storage.value}(64) USING NULL"
        )
        for indexed in kinds:
            values = {"storage": storage.value, "distance": indexed.distance.value}
            connection.execute(sa.text("UPDATE neural.spaces SET storage = :storage, distance = :distance"), values)
            index = json.dumps(indexed.index.as_json())
            definition = connection.scalar(
                sa.text("SELECT neural.index_definition(id, CAST(:index AS jsonb)) FROM neural.spaces"),
                {"index": index},
            )
            modelled = str(CreateIndex(vector_index(chunks, indexed)).compile(connection))
            assert made(connection, f"CREATE INDEX {definition}") == made(connection, modelled), indexed
