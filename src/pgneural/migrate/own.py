"""Bringing a database to this version's schema, and telling whether it is there.

The only module that knows both folders: ``migrations/`` (tables, by Alembic) and ``sql/`` (functions and
views, applied whole and in name order after every upgrade). One transaction under an advisory lock does
both, so concurrent callers wait for each other and a failure leaves nothing behind. Alembic is imported when it is
needed: it imports our plugin itself, and then this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from pgneural.errors import MissingPrivilege, NewerSchema, OutdatedSchema, SchemaNotInstalled
from pgneural.store import rights
from pgneural.store.catalog import add_missing_terms
from pgneural.store.engine import (
    execute_script,
    require_encoding,
    require_extension,
    require_server,
    require_visible_extension,
)
from pgneural.store.owner import Within
from pgneural.store.reconcile import Differences, compare, follow
from pgneural.store.reconcile import searches as searches_of_all
from pgneural.store.schema import SCHEMA, Catalog, SqlFile
from pgneural.store.visibility import follow_row_security, unprotected

if TYPE_CHECKING:
    from alembic.config import Config

LOCK = 0x706E6575  # "pneu": the key of our advisory lock
_PACKAGE = Path(__file__).parent.parent
_ROOT = _PACKAGE.parent.parent


def shipped_folder(name: str) -> Path:
    """Return a folder that ships inside the wheel, or lies at the root of a source checkout."""
    packaged = _PACKAGE / f"_{name}"
    return packaged if packaged.is_dir() else _ROOT / name


def sql_files() -> Sequence[Path]:
    """Return the files of ``sql/`` in the order in which they are applied."""
    return sorted(shipped_folder("sql").glob("*.sql"))


@dataclass(frozen=True)
class SchemaState:
    """Where a database stands: its revision, ours, and what differs (empty when all is well)."""

    revision: str | None
    head: str
    differences: Sequence[str] = ()

    @property
    def current(self) -> bool:
        """Whether the database is at our revision and nothing differs."""
        return self.revision == self.head and not self.differences


def upgrade(connection: sa.Connection, revision: str = "head") -> SchemaState:
    """Bring the database to this version's schema; the caller commits.

    Applying it twice changes nothing. The host application's own ``alembic_version`` is not touched:
    ours lies in schema ``neural``.

    Raises:
        OutdatedServer, MissingExtension, OutdatedExtension: The server will not do.
        MissingPrivilege: The role may not, or the schema or a part of it belongs to another.
        NewerSchema: A later pgneural has already upgraded this database.
    """
    _quote_as_usual(connection)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    require_server(connection)
    require_encoding(connection)
    require_extension(connection)
    _require_own(connection)
    _refuse_newer(connection)
    if not sa.inspect(connection).has_schema(SCHEMA):
        connection.execute(sa.schema.CreateSchema(SCHEMA))
    _run("upgrade", connection, revision)
    if revision == "head":
        apply_sql(connection)
        _record(connection, _fingerprints(connection))
        add_missing_terms(connection)
        follow_row_security(connection)
        _follow_sources(connection)
    return state(connection)


def downgrade(connection: sa.Connection, revision: str) -> None:
    """Take the tables back to a revision, or to ``base``; the caller commits."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    for name in sorted(_objects(connection), reverse=True):
        kind, _, identity = name.partition(" ")
        connection.execute(sa.text(f"DROP {kind} IF EXISTS {identity} CASCADE"))
    if sa.inspect(connection).has_table("sql_files", SCHEMA):
        connection.execute(sa.delete(SqlFile))
    _run("downgrade", connection, revision)


def state(connection: sa.Connection) -> SchemaState:
    """Return the database's revision and ours, without looking for differences."""
    return SchemaState(_revision(connection), _head())


def is_current(connection: sa.Connection) -> bool:
    """Whether the revision is ours and the files of ``sql/`` are those that were last applied."""
    if _revision(connection) != _head():
        return False
    return _recorded(connection, objects=False) == _files()


def _files() -> dict[str, str]:
    return {file.name: _sha256(file.read_text(encoding="utf-8")) for file in sql_files()}


def _recorded(connection: sa.Connection, *, objects: bool) -> dict[str, str]:
    """Return what the last upgrade has recorded: of files, or of the functions and views that they made."""
    chosen = SqlFile.name.startswith(OBJECT) if objects else SqlFile.name.not_like(f"{OBJECT}%")
    return {row.name: row.sha256 for row in connection.execute(sa.select(SqlFile.name, SqlFile.sha256).where(chosen))}


def check(connection: sa.Connection) -> SchemaState:
    """Compare the database with the models and with ``sql/``; the database is left as it is."""
    _quote_as_usual(connection)
    revision = _revision(connection)
    if revision is None:
        return SchemaState(None, _head(), ("schema neural is not installed; run: pgneural db upgrade",))
    _refuse_newer(connection)
    if revision != _head():
        return SchemaState(revision, _head(), (f"revision {revision} is not {_head()}; run: pgneural db upgrade",))
    differences = [
        *_foreign(connection),
        *_table_differences(connection),
        *_sql_differences(connection),
        *rights.differences(connection),
        *_broken(connection),
        *_unlike_their_sources(connection),
        *connection.scalars(sa.text(_SET_ASIDE)),
    ]
    return SchemaState(revision, _head(), tuple(differences))


def require_current(connection: sa.Connection) -> None:
    """Refuse a database whose schema is not this version's.

    Raises:
        SchemaNotInstalled, OutdatedSchema, NewerSchema: Each with the remedy.
    """
    revision = _revision(connection)
    if revision is None:
        raise SchemaNotInstalled("the database has no schema neural; run: pgneural db upgrade")
    _refuse_newer(connection)
    if revision != _head():
        raise OutdatedSchema(
            f"the database is at schema revision {revision}, this pgneural needs {_head()}; run: pgneural db upgrade"
        )
    require_visible_extension(connection)


def configuration() -> Config:
    """Return the Alembic configuration of our own migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(shipped_folder("migrations")).replace("%", "%%"))
    return config


def _quote_as_usual(connection: sa.Connection) -> None:
    """Have names and types come as they are compared, for this transaction, whatever the role or database has set."""
    connection.execute(sa.select(sa.func.set_config("quote_all_identifiers", "off", True)))


def _run(action: str, connection: sa.Connection, revision: str) -> None:
    from alembic import command

    config = configuration()
    config.attributes["connection"] = connection
    getattr(command, action)(config, revision)


def _revisions() -> list[str]:
    """Return all revisions in order; files are named after theirs, and Alembic is long to import."""
    files = (shipped_folder("migrations") / "versions").glob("[0-9]*.py")
    return sorted(path.name.partition("_")[0] for path in files)


def _head() -> str:
    return _revisions()[-1]


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version", SCHEMA):
        return None
    table = sa.table("alembic_version", sa.column("version_num"), schema=SCHEMA)
    return connection.scalar(sa.select(table.c.version_num))


def _refuse_newer(connection: sa.Connection) -> None:
    revision = _revision(connection)
    known = _revisions()
    if revision is not None and revision not in known:
        raise NewerSchema(
            f"the database is at schema revision {revision}, which pgneural {version('pgneural')} does not know "
            f"(it knows up to {_head()}); install the newer pgneural that upgraded it"
        )


def apply_sql(connection: sa.Connection) -> None:
    """Apply the files of ``sql/``, in name order."""
    for file in sql_files():
        execute_script(connection, file.read_text(encoding="utf-8"))
    _record(connection, _files())


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _record(connection: sa.Connection, hashes: Mapping[str, str]) -> None:
    """Record the hashes of all files, or of all objects, in the place of those of the last time."""
    objects = any(name.startswith(OBJECT) for name in hashes)
    gone = _recorded(connection, objects=objects).keys() - hashes.keys()
    connection.execute(sa.delete(SqlFile).where(SqlFile.name.in_(gone)))
    rows = [{"name": name, "sha256": hash_, "version": version("pgneural")} for name, hash_ in hashes.items()]
    new = insert(SqlFile).values(rows)
    values = {"sha256": new.excluded.sha256, "version": new.excluded.version, "applied_at": sa.func.now()}
    changed = SqlFile.sha256 != new.excluded.sha256
    connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=values, where=changed))


def include_object(item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Leave out of every comparison what our models do not declare: chunk tables are made on demand."""
    return not (type_ == "table" and reflected and compare_to is None)


def _table_differences(connection: sa.Connection) -> list[str]:
    options = {
        "version_table_schema": SCHEMA,
        "include_schemas": True,
        "include_name": lambda name, type_, _: type_ != "schema" or name == SCHEMA,
        "include_object": include_object,
        # which executes them, and on a standby one cannot be
        "compare_server_default": not connection.scalar(sa.text("SELECT pg_is_in_recovery()")),
    }
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts=options)
    return [f"table: {difference}" for difference in compare_metadata(context, Catalog.metadata)]


def _broken(connection: sa.Connection) -> list[str]:
    """Tell which tables of collections are missing, which indexes are invalid, which triggers note for nothing."""
    missing = sa.text(
        "SELECT format('table neural.%I of collection %s is missing; drop the collection and index it again', t, s)"
        "  FROM (SELECT chunk_table AS t, attribute AS s FROM neural.spaces WHERE source = 'neural.documents'"
        "        UNION ALL SELECT chunk_table || '_terms', attribute FROM neural.spaces"
        "                   WHERE source = 'neural.documents' AND kind = 'dense') made"
        " WHERE to_regclass(format('neural.%I', t)) IS NULL"
    )
    invalid = sa.text(
        "SELECT format('index neural.%I is invalid; index into its collection again, that builds it anew', c.relname)"
        "  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE NOT i.indisvalid AND c.relnamespace = to_regnamespace('neural')"
        "   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
    )
    orphaned = sa.text(  # of a search that is not there, as after a table was restored into another database
        "SELECT format('trigger %I of table %s notes for no search; run: DROP TRIGGER %1$I ON %2$s',"
        "              t.name, t.relation)"
        "  FROM neural.noting_triggers() t"
        " WHERE NOT EXISTS (SELECT FROM neural.spaces s WHERE s.id = ANY (t.spaces))"
        "   AND neural.spaces_of(t.relation, t.chunk_table, t.schema) = '{}'"
    )
    found = [found for query in (missing, invalid, orphaned) for found in connection.scalars(query)]
    found += [
        f"row-level security of table {table} is not that of {source}; run as its owner: pgneural db upgrade"
        for table, source in unprotected(connection)
    ]
    return found


def _require_own(connection: sa.Connection) -> None:
    """Refuse a schema that is not the role's own: what others own in it they can change, also after the upgrade.

    Raises:
        MissingPrivilege: The schema belongs to another role, or something in it.
    """
    schema = "SELECT nspowner::regrole::text, nspowner::regrole::text = quote_ident(current_user)"
    found = connection.execute(sa.text(f"{schema} FROM pg_namespace WHERE nspname = 'neural'")).first()
    if found is not None and not found[1]:
        raise MissingPrivilege(
            f"schema neural belongs to role {found[0]}; upgrade as that role, or, if you know it, "
            "run: ALTER SCHEMA neural OWNER TO CURRENT_USER"
        )
    if foreign := _foreign(connection):
        raise MissingPrivilege(foreign[0])


def _foreign(connection: sa.Connection) -> list[str]:
    """Tell what in the schema belongs to another role than the schema."""
    return list(connection.scalars(sa.text(_FOREIGN)))


def _follow_sources(connection: sa.Connection) -> None:
    """Give searches of an earlier version the triggers of this one, as far as their tables are the role's own."""
    own = sa.text(
        "SELECT s.id FROM neural.spaces s JOIN pg_class c ON c.oid = s.relation"
        " WHERE s.source <> 'neural.documents' AND c.relowner::regrole::text = quote_ident(current_user) ORDER BY s.id"
    )
    for space in connection.scalars(own).all():
        connection.execute(sa.text("SELECT * FROM neural.follow(:space)"), {"space": space})


def _unlike_their_sources(connection: sa.Connection) -> list[str]:
    """Tell which tables differ from what is kept of them; those that the role may not read are left out."""
    found = []
    for space in searches_of_all(connection):
        differing = Differences(followed=follow(Within(connection), space.id, repair=False))
        readable = sa.text("SELECT coalesce(has_table_privilege(CAST(:relation AS regclass), 'SELECT'), false)")
        if not differing.followed and connection.scalar(readable, {"relation": space.relation}):
            differing = compare(Within(connection), space.id, repair=False)
        if differing.number:
            by_hand = f"neural.reconcile('{space.source}')"
            found.append(f"{space.search}: {differing}; a worker mends that, or in psql: SELECT * FROM {by_hand}")  # noqa: S608
    return found


_SET_ASIDE = """
SELECT format('%s.%s: its vector index was set aside for a load that did not end; a worker or sync() ends it, or run: '
              'pgneural space index %1$s.%2$s %s', t.source, t.attribute, t.space)
  FROM neural.status t WHERE t.index_waits AND t.pending = 0 ORDER BY 1"""

_FOREIGN = """
SELECT format('%s %s belongs to role %s, and schema neural to %s; who owns it can change what it does: drop it, '
              'or run: ALTER %1$s %2$s OWNER TO %4$s', o.kind, o.name, o.owner::regrole, n.nspowner::regrole)
  FROM pg_namespace n
 CROSS JOIN LATERAL (
       SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END AS kind,
              p.oid::regprocedure::text AS name, p.proowner AS owner FROM pg_proc p WHERE p.pronamespace = n.oid
       UNION ALL
       SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text,
              c.relowner
         FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
       UNION ALL
       SELECT 'TYPE', t.oid::regtype::text, t.typowner
         FROM pg_type t WHERE t.typnamespace = n.oid AND t.typrelid = 0 AND t.typelem = 0) o
 WHERE n.nspname = 'neural' AND o.owner <> n.nspowner
 ORDER BY 1"""


def _sql_differences(connection: sa.Connection) -> list[str]:
    """Apply ``sql/`` within a savepoint that is taken back, and tell what that would change.

    Where nothing can be written, functions and views are compared with what the last upgrade has recorded of them.
    """
    if connection.scalar(sa.text("SHOW transaction_read_only")) == "on":
        return _unlike_recorded(connection)
    before = _objects(connection)
    try:
        with connection.begin_nested() as savepoint:
            apply_sql(connection)
            after = _objects(connection)
            savepoint.rollback()
    except DBAPIError as error:
        return [f"sql/ cannot be applied: {str(error.orig).splitlines()[0]}; drop what stands in its way"]
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return [f"{name}: differs from sql/; run: pgneural db upgrade" for name in sorted(changed)]


def _unlike_recorded(connection: sa.Connection) -> list[str]:
    here = _files() | _fingerprints(connection)
    known: dict[str, str] = {}
    for objects in (False, True):
        known |= _recorded(connection, objects=objects)
    changed = {name.removeprefix(OBJECT) for name in here.keys() | known.keys() if here.get(name) != known.get(name)}
    return [f"{name}: differs from sql/; run on the primary: pgneural db upgrade" for name in sorted(changed)]


OBJECT = "object "
"""How the names of what was made by files begin, beside the names of the files, in ``neural.sql_files``."""


def _fingerprints(connection: sa.Connection) -> dict[str, str]:
    return {f"{OBJECT}{name}": _sha256(definition) for name, definition in _objects(connection).items()}


_OBJECTS = """
SELECT 'FUNCTION ' || p.oid::regprocedure AS name,
       pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid, 'pg_proc'), '') AS definition
  FROM pg_proc p WHERE p.pronamespace = to_regnamespace('neural')
UNION ALL
SELECT 'VIEW ' || c.oid::regclass,
       pg_get_viewdef(c.oid) || coalesce(obj_description(c.oid, 'pg_class'), '')
  FROM pg_class c
 WHERE c.relnamespace = to_regnamespace('neural') AND c.relkind = 'v'
   AND NOT EXISTS (SELECT 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
                    WHERE r.ev_class = c.oid AND d.refobjid = to_regclass('neural.documents')
                      AND obj_description(c.oid, 'pg_class') LIKE 'Documents of collection %')
"""


def _objects(connection: sa.Connection) -> dict[str, str]:
    """Return the definition of each function and view of ours; views of collections are not ours."""
    find = sa.text("SELECT current_setting('search_path'), set_config('search_path', '', true)")
    path = connection.execute(find).scalar()  # names with their schemas, whatever the path
    found = {row.name: row.definition for row in connection.execute(sa.text(_OBJECTS))}
    connection.execute(sa.select(sa.func.set_config("search_path", path, True)))
    return found
