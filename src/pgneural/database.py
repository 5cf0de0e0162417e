"""A database with pgneural in it: connect to one, bring its schema up to date, get its collections."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pgneural import encoders, migrate
from pgneural.collection import Collection
from pgneural.comparison import Comparison, compare
from pgneural.document_searcher import DocumentSearcher
from pgneural.encoders.permitted import permit
from pgneural.errors import InvalidSpace, UnknownSpace
from pgneural.extra_vectors import encoder_of as extra_encoder
from pgneural.opening import (
    definition_of,
    encoder_of,
    encoder_of_space,
    require_same_encoder,
    require_same_keeping,
    require_same_wording,
)
from pgneural.store import catalog, queue, spaces
from pgneural.store.embedded import EmbeddedServer
from pgneural.store.engine import (
    bm25_extensions,
    create_engine,
    hidden_password,
    pgvector_version,
    server_version,
    translated,
)
from pgneural.store.indexes import build, one_builder
from pgneural.store.monitoring import SpaceStatus, WorkerStatus, statuses, workers
from pgneural.store.schema import DOCUMENTS, Space
from pgneural.store.space import chunks_of, extra_spaces
from pgneural.store.vectors import Storage, VectorIndex
from pgneural.table import TableSearch, table_search
from pgneural.types import Distance, Encoder, ExtraEncoder, Mode


@dataclass(frozen=True)
class DatabaseStatus:
    """What ``pgneural db status`` prints."""

    url: str
    server_version: str
    pgvector_version: str | None
    schema_revision: str | None
    expected_revision: str
    collections: list[catalog.CollectionStatus]
    bm25_extensions: list[str]


class Database:
    """A connection pool to one database. Made by `connect` or `embedded`."""

    def __init__(self, url: str, *, prepared: bool = True) -> None:
        self.url = url
        self.engine = create_engine(url, prepared=prepared)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the server keeps running."""
        self.engine.dispose()

    def upgrade(self) -> migrate.SchemaState:
        """Bring the schema up to date; see `pgneural.migrate.upgrade`."""
        with translated(), self.engine.begin() as connection:
            return migrate.upgrade(connection)

    def current(self) -> bool:
        """Whether tables, functions and views are those of this version, as far as the catalog tells."""
        with translated(), self.engine.connect() as connection:
            return migrate.is_current(connection)

    def check(self) -> migrate.SchemaState:
        """Compare the schema with what this version expects; see `pgneural.migrate.check`."""
        with translated(), self.engine.begin() as connection:
            return migrate.check(connection)

    def require_current(self) -> None:
        """Make sure that the schema is that of this version.

        Raises:
            SchemaNotInstalled, OutdatedSchema, NewerSchema: See `upgrade`.
        """
        with translated(), self.engine.begin() as connection:
            migrate.require_current(connection)

    def work(self) -> list[SpaceStatus]:
        """Return what waits to be encoded, by space."""
        with translated(), self.engine.begin() as connection:
            return statuses(connection)

    def workers(self) -> list[WorkerStatus]:
        """Return the workers that were seen in the last hour."""
        with translated(), self.engine.begin() as connection:
            return workers(connection)

    def retry_failed(self) -> int:
        """Have rows that were given up tried again; return how many."""
        with translated(), self.engine.begin() as connection:
            return queue.retry(connection)

    def status(self) -> DatabaseStatus:
        """Return versions, schema revision and the collections with their counts."""
        with translated(), self.engine.connect() as connection:
            state = migrate.state(connection)
            return DatabaseStatus(
                url=hidden_password(self.url),
                server_version=server_version(connection),
                pgvector_version=pgvector_version(connection),
                schema_revision=state.revision,
                expected_revision=state.head,
                collections=catalog.collections(connection) if state.revision else [],
                bm25_extensions=bm25_extensions(connection),
            )

    def collection(
        self,
        name: str,
        *,
        encoder: str | Path | Encoder | None = None,
        language: str | None = None,
        title_boost: float | None = None,
        language_by: str | None = None,
        storage: Storage | str | None = None,
        index: VectorIndex | None = None,
        sparse: str | Path | ExtraEncoder | None = None,
        late: str | Path | ExtraEncoder | None = None,
        **options: Any,
    ) -> Collection:
        """Return a collection; make it where it does not exist yet.

        Args:
            name: 1 to 39 bytes of printable characters without ``%``.
            encoder: A name for `pgneural.encoders.get`, or an encoder. By default the one that made the
                collection; for a new one, ``minilm``.
            language: The text search configuration of its words (psql lists them); ``english`` for a new one.
            title_boost: How often a word of the title counts, against one of the content; 1 for a new one.
            language_by: An SQL expression over `Document` that gives the language of each, as a text search
                configuration or a code like ``en``: ``metadata->>'lang'``. Where it is NULL, `language` holds.
            storage: The type of the vectors' column: ``vector``, or ``halfvec`` for half the space; of vectors of bits
                always ``bit``. Only for a new collection.
            index: How the vectors of a new collection are indexed; by default half precision HNSW, or what takes so
                many dimensions. `Collection.reindex` changes it.
            sparse: A learned sparse encoder (sentence-transformers `SparseEncoder`), as a folder or name: a further leg
                of hybrid search, and mode ``sparse``. A collection may be given one at any time; the next `index`
                completes it.
            late: An encoder of tokens (`MultiVectorEncoder`), as a folder or name, for `LateInteraction`; likewise.
            **options: Passed to `pgneural.encoders.get`; for ``vectors:<dimensions>`` a `distance`.

        Raises:
            EncoderMismatch: The collection exists with another encoder.
            InvalidName: The name will not do.
            InvalidIndex: pgvector cannot store or index the vectors in this way.
            UnknownLanguage: The server does not know it, or the collection exists with another.
            SchemaNotInstalled, OutdatedSchema, NewerSchema: See `Database.upgrade`.
        """
        catalog.require_printable(name)
        with translated(), self.engine.begin() as connection:
            migrate.require_current(connection)
            space = catalog.find_space(connection, name)
        if space is None:
            loaded = encoder_of(encoder or encoders.DEFAULT, options)
            definition = definition_of(
                name,
                loaded,
                options,
                language="english" if language is None else language,
                title_boost=1.0 if title_boost is None else title_boost,
                language_by=language_by,
                storage=storage,
                index=index,
            )
            with translated(), self.engine.begin() as connection:
                space = catalog.create_collection(connection, definition, loaded.revision)
            encoder = loaded
        else:
            require_same_keeping(space, storage, index)
        require_same_encoder(space, encoder, options)
        require_same_wording(space, language, title_boost, language_by)
        extra = {"sparse": sparse, "tokens": late}
        self._add_extra(space, extra)
        return self._opened(space, encoder, options, extra)

    def existing(self, name: str, **options: Any) -> Collection:
        """Return a collection that must exist.

        Raises:
            UnknownCollection: It does not; the message names those that do.
        """
        with translated(), self.engine.begin() as connection:
            migrate.require_current(connection)
            space = catalog.require_space(connection, name)
        return self._opened(space, None, options)

    def table(self, name: str) -> TableSearch[Any]:
        """Return the search of a table, to be asked as a collection is; no mapped class is needed.

        Args:
            name: ``table.search``, or ``schema.table.search``.

        Raises:
            UnknownSpace: There is no such search.

        Example:
            >>> db.table("articles.search").search("foxes", where="id < 10", limit=1)[0].entity.title
            'Foxes'
        """
        with translated():
            with self.engine.begin() as connection:
                migrate.require_current(connection)
                found = spaces.named(connection, name)
                if found.source == DOCUMENTS.fullname:
                    raise UnknownSpace(f"{name!r} is a collection and not the search of a table; see existing()")
            return table_search(self.engine, found)

    def find(self, name: str) -> Collection | TableSearch[Any]:
        """Return a collection, or the search of a table, that must exist.

        Raises:
            UnknownCollection: There is neither; the message names those that there are.
        """
        with translated(), self.engine.begin() as connection:
            migrate.require_current(connection)
            collection = catalog.find_space(connection, name)
        if collection is None and "." in name:
            with contextlib.suppress(UnknownSpace):
                return self.table(name)
        return self.existing(name)

    def spaces(self, search: str) -> list[SpaceStatus]:
        """Return the spaces of a search, the one that serves first.

        Args:
            search: A collection, ``table.search``, or ``schema.table.search``.

        Raises:
            UnknownSpace: There is no such search.
        """
        with translated(), self.engine.begin() as connection:
            return statuses(connection, spaces.named(connection, search))

    def create_space(
        self,
        search: str,
        name: str,
        *,
        encoder: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        dimensions: int | None = None,
        distance: Distance | str | None = None,
        language: str | None = None,
        max_tokens: int | None = None,
        overlap: int | None = None,
        title_boost: float | None = None,
        index: VectorIndex | None = None,
        rows_per_second: float | None = None,
    ) -> None:
        """Make another space beside the one that serves; workers fill it. What is not given stays as it is.

        Args:
            search: As of `spaces`.
            name: Letters, digits and ``_``; tells the spaces of the search apart.
            encoder: A name for `pgneural.encoders.get`, known to the workers, too.
            options: What the encoder is made with.
            dimensions: Of its vectors, where they cannot be known without loading it.
            distance: How they are compared; by default as the encoder says.
            language: The text search configuration of its words.
            max_tokens: The longest chunk.
            overlap: What neighbouring chunks share, in tokens.
            title_boost: How often a word of the title counts.
            index: How its vectors are indexed.
            rows_per_second: How many rows all workers together encode at most.

        Raises:
            UnknownSpace: There is no such search.
            InvalidSpace: It cannot be made so.
            UnknownEncoder: There is no such encoder.
        """
        found = self._search(search)
        changes: dict[str, Any] = {"options": dict(options) if options else None, "dimensions": dimensions}
        if encoder is not None:
            permit(encoder)
            changes["encoder"] = known = encoders.canonical(encoder)
            length, usual = encoders.described(known, options or {})
            if length is None and dimensions is None:
                raise InvalidSpace(f"how many dimensions {known!r} has is not known here; give dimensions")
            changes |= {"options": dict(options or {}), "dimensions": dimensions or length}
            distance = distance or usual
        vectors = {"distance": distance and str(distance), "vector_index": index and index.as_json()}
        wording = {"language": language, "title_boost": title_boost}
        cutting = {"max_tokens": max_tokens, "overlap": overlap, "rows_per_second": rows_per_second}
        spaces.create(self.engine, found, name, {**changes, **vectors, **wording, **cutting})

    def index_space(self, search: str, name: str) -> bool:
        """Build the vector index of a space where it is missing and worth it; return whether it was built."""
        found = self._search(search)
        with translated():
            with self.engine.begin() as connection:
                space = spaces.require(connection, found, name)
            return build(self.engine, space)

    def compare_spaces(
        self,
        search: str,
        name: str,
        queries: str | Path | Mapping[str, str] | None = None,
        qrels: str | Path | Mapping[str, Mapping[str, int]] | None = None,
        *,
        k: int = 10,
        mode: Mode = Mode.HYBRID,
    ) -> Comparison:
        """Compare a space with the one that serves; see `pgneural.comparison.compare`."""
        return compare(self.engine, self._search(search), name, queries, qrels, k=k, mode=mode)

    def switch_space(self, search: str, name: str, *, force: bool = False) -> None:
        """Have another space of a search answer from now on; the one that did is on standby, in step with the rows.

        Raises:
            InvalidSpace: Rows are not encoded yet, or it has no index; `force` switches even so.
            UnknownSpace: There is no such search or space.
        """
        spaces.switch(self.engine, self._search(search), name, force=force)

    def rollback_space(self, search: str) -> str:
        """Bring back the space that served before; return its name.

        Raises:
            UnknownSpace: None is on standby.
        """
        return spaces.rollback(self.engine, self._search(search))

    def drop_space(self, search: str, name: str) -> None:
        """Drop a space that does not serve, with its vectors and words.

        Raises:
            InvalidSpace: It serves.
            UnknownSpace: There is no such search or space.
        """
        spaces.drop(self.engine, self._search(search), name)

    def add_vectors(
        self,
        search: str,
        *,
        sparse: str | Path | ExtraEncoder | None = None,
        late: str | Path | ExtraEncoder | None = None,
    ) -> None:
        """Give a search extra vectors of its chunks; workers, or the next `sync`, make them.

        Args:
            search: As of `spaces`. To a collection, `collection` gives them.
            sparse: A learned sparse encoder (sentence-transformers `SparseEncoder`), as a folder or name, known to the
                workers, too: a further leg of hybrid search, and mode ``sparse``.
            late: An encoder of tokens (`MultiVectorEncoder`), as a folder or name, for `LateInteraction`; likewise.

        Raises:
            UnknownSpace: There is no such search.
            InvalidSpace: It has such vectors already, or no chunks.
            EncoderUnavailable: The model's files are not here, or are not such a model's.
        """
        found = self._search(search)
        if found.source == DOCUMENTS.fullname:
            self.collection(found.attribute, sparse=sparse, late=late)
            return
        for kind, encoder in (("sparse", sparse), ("tokens", late)):
            if encoder is not None:
                spaces.add_vectors(self.engine, found, kind, extra_encoder(kind, encoder))

    def drop_vectors(self, search: str, kind: Literal["sparse", "tokens"]) -> None:
        """Drop the extra vectors of a search, of one kind; errors are those of `add_vectors`."""
        spaces.drop_vectors(self.engine, self._search(search), kind)

    def _search(self, search: str) -> Space:
        with translated(), self.engine.begin() as connection:
            migrate.require_current(connection)
            return spaces.named(connection, search)

    def drop(self, name: str) -> None:
        """Drop a collection with all its documents.

        Raises:
            UnknownCollection: There is none of this name.
        """
        with translated(), contextlib.ExitStack() as held:
            with self.engine.begin() as connection:
                migrate.require_current(connection)
                space = catalog.require_space(connection, name)
                every = [space, *extra_spaces(connection, space).values()]
            for each in every:
                held.enter_context(one_builder(self.engine, chunks_of(each)))
            with self.engine.begin() as connection:
                catalog.drop_collection(connection, name)

    def _opened(
        self,
        space: Space,
        encoder: str | Path | Encoder | None,
        options: dict[str, Any],
        extra: Mapping[str, str | Path | ExtraEncoder | None] | None = None,
    ) -> Collection:
        make = functools.partial(encoder_of_space, space, encoder, options)
        return Collection(DocumentSearcher(self.engine, space, make, extra))

    def _add_extra(self, space: Space, wanted: Mapping[str, str | Path | ExtraEncoder | None]) -> None:
        """Give a collection the extra vectors that it has not yet; refuse another encoder than it has."""
        for kind, encoder in wanted.items():
            if encoder is None:
                continue
            loaded = extra_encoder(kind, encoder)
            with translated(), self.engine.begin() as connection:
                existing = extra_spaces(connection, space).get(kind)
                if existing:
                    catalog.require_encoder(existing, loaded)
                else:
                    catalog.create_extra(connection, space, kind, loaded, {})


def connect(url: str, *, prepared: bool = True) -> Database:
    """Connect to a server by a libpq URL or connection string.

    Args:
        url: Where the server is.
        prepared: False behind a pooler that gives every transaction another server connection and does not know
            prepared statements (PgBouncer before 1.21). Searching works through it; index on a direct connection.

    Example:
        >>> db = connect("postgresql://app@localhost/app")
    """
    return Database(url, prepared=prepared)


def embedded(path: str | Path) -> Database:
    """Start the private server that keeps its data under a folder, and connect to it with the schema in place.

    Raises:
        MissingExtra: ``pip install 'pgneural[embedded]'`` brings the server.
    """
    database = Database(EmbeddedServer(Path(path).expanduser().absolute()).start())
    try:
        if not database.current():
            database.upgrade()
    except BaseException:
        database.close()
        raise
    return database
