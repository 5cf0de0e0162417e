"""Every error that pgneural raises on purpose.

::

    PgneuralError
    ├── UnknownEncoder          (LookupError)
    ├── EncoderUnavailable      (OSError)
    ├── UnpermittedModel        (PermissionError)
    ├── UnsupportedContent      (ValueError)
    ├── TextTooLong             (ValueError)
    ├── DimensionMismatch       (ValueError)
    ├── EncoderMismatch         (ValueError)
    ├── UnreadableInput         (ValueError)
    ├── RefusedRecords          (ValueError)
    ├── InvalidName             (ValueError)
    ├── UnknownLanguage         (LookupError)
    ├── InvalidIndex            (ValueError)
    ├── InvalidDeclaration      (ValueError)
    ├── InvalidFilter           (ValueError)
    ├── InvalidQuery            (ValueError)
    ├── UnknownCollection       (LookupError)
    ├── UnknownDocument         (LookupError)
    ├── UnknownSpace            (LookupError)
    ├── InvalidSpace            (ValueError)
    ├── StaleResults            (TimeoutError)
    ├── UnfinishedWork
    ├── MissingExtra            (ImportError)
    └── DatabaseError
        ├── DatabaseUnreachable (ConnectionError)
        ├── MissingExtension
        ├── OutdatedExtension
        ├── OutdatedServer
        ├── UnsupportedDriver
        ├── UnsupportedEncoding
        ├── MissingPrivilege    (PermissionError)
        ├── ReadOnlyDatabase    (PermissionError)
        ├── StatementCancelled  (TimeoutError)
        ├── LockTimeout         (TimeoutError)
        ├── TransactionConflict
        ├── ResourcesExhausted
        ├── ChangedType
        ├── SchemaNotInstalled
        ├── OutdatedSchema
        └── NewerSchema

A message names the value found and the value expected, and ends with the remedy. The command line
prints it on one line; a traceback is only ever one of our own bugs. Whatever it quotes, it can be printed as it is.
"""

from pgneural.printable import printable


class PgneuralError(Exception):
    """Something that the caller can mend went wrong."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UnknownEncoder(PgneuralError, LookupError):
    """No encoder is registered under this name, no such model folder exists, or it has no such option."""


class EncoderUnavailable(PgneuralError, OSError):
    """The encoder is known, but its files cannot be read here."""


class UnpermittedModel(PgneuralError, PermissionError):
    """A database names a model, or an option of one, that this host does not permit."""


class UnsupportedContent(PgneuralError, ValueError):
    """A content of this modality cannot be cut or encoded."""


class TextTooLong(PgneuralError, ValueError):
    """The text has more tokens than the encoder reads; nothing is ever cut silently."""


class DimensionMismatch(PgneuralError, ValueError):
    """The vector has another length than the space that it should go into."""


class EncoderMismatch(PgneuralError, ValueError):
    """The vectors of a space were made by another encoder or revision than the one at hand."""


class UnreadableInput(PgneuralError, ValueError):
    """A file, a folder or a format cannot be read at all."""


class RefusedRecords(PgneuralError, ValueError):
    """Some records were bad and the caller asked to refuse them; the others are stored, as `report` says."""

    report: object = None


class InvalidName(PgneuralError, ValueError):
    """The name cannot be used for a collection."""


class UnknownLanguage(PgneuralError, LookupError):
    """The server has no such text search configuration, or the collection was made with another."""


class InvalidIndex(PgneuralError, ValueError):
    """pgvector cannot index these vectors in this way."""


class InvalidDeclaration(PgneuralError, ValueError):
    """A `Searchable` of a mapped class cannot be as it is declared."""


class InvalidFilter(PgneuralError, ValueError):
    """PostgreSQL does not accept the filter."""


class InvalidQuery(PgneuralError, ValueError):
    """An option of a search is out of range, or does not go with the others."""


class UnknownCollection(PgneuralError, LookupError):
    """The database has no collection of this name."""


class UnknownSpace(PgneuralError, LookupError):
    """The database has no such search, or it has no space of this name."""


class InvalidSpace(PgneuralError, ValueError):
    """A space of a search cannot be made, switched to or dropped as was asked."""


class StaleResults(PgneuralError, TimeoutError):
    """Rows that have changed are not encoded yet, and the caller asked for fresh results."""


class UnfinishedWork(PgneuralError):
    """A worker that was to do all there is could not; the rest is done."""


class UnknownDocument(PgneuralError, LookupError):
    """The collection has no document of this external id."""


class MissingExtra(PgneuralError, ImportError):
    """A part of pgneural that was asked for is not installed."""


class DatabaseError(PgneuralError):
    """The database cannot serve us as it is."""


class DatabaseUnreachable(DatabaseError, ConnectionError):
    """No connection could be made, or it was lost."""


class MissingExtension(DatabaseError):
    """The pgvector extension is not there and cannot be created."""


class OutdatedExtension(DatabaseError):
    """The pgvector extension is too old."""


class OutdatedServer(DatabaseError):
    """The PostgreSQL server is too old."""


class MissingPrivilege(DatabaseError, PermissionError):
    """The role may not do what was asked."""


class ReadOnlyDatabase(DatabaseError, PermissionError):
    """Something was to be written on a standby server, or in a transaction that only reads."""


class UnsupportedDriver(DatabaseError):
    """The driver, or the database, is not one that we speak to."""


class UnsupportedEncoding(DatabaseError):
    """The database keeps text in another encoding than UTF8."""


class StatementCancelled(DatabaseError, TimeoutError):
    """The server, or somebody there, ended the statement: it took too long."""


class LockTimeout(DatabaseError, TimeoutError):
    """Others hold what the statement waits for."""


class TransactionConflict(DatabaseError):
    """Another transaction got in the way; the same again may work."""


class ResourcesExhausted(DatabaseError):
    """The server, or the pool, has no more memory, disk or connections, or a limit of it is reached."""


class ChangedType(DatabaseError):
    """A column's type changed under a prepared statement; the same again works."""


class SchemaNotInstalled(DatabaseError):
    """The database has no pgneural schema yet."""


class OutdatedSchema(DatabaseError):
    """The database schema is older than this pgneural."""


class NewerSchema(DatabaseError):
    """The database schema is newer than this pgneural."""
