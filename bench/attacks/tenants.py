"""Two tenants and other roles, what one of them may try, and how it is seen that it had an effect."""

# ruff: noqa: E501, S608 — a query is a line

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import SQLAlchemyError

from bench.attacks import differences, execute, new_database, refused
from pgneural import Database
from pgneural.errors import PgneuralError
from pgneural.store.embedded import EmbeddedServer
from pgneural.worker import Worker

ROLES = ("mine", "theirs", "reading", "writing", "guest", "maker", "encoding")
"""Owners of two tables; who may read and write the first; who may make things in its schema; who may make schemas; a
worker."""

SETUP = [
    *(f"CREATE ROLE {role} LOGIN" for role in ROLES),
]

SPY = (
    "CREATE FUNCTION {schema}.spy() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
    " PERFORM pg_catalog.nextval(('public.seen_' || current_user)::pg_catalog.regclass); RETURN true; END $$"
)
"""What tells who executed it: a sequence keeps what it gave, even if the transaction is rolled back."""

CALL = "PERFORM {schema}.spy();"

PLACE = [
    *(f"CREATE SEQUENCE public.seen_{role} MINVALUE 0 START 0" for role in (*ROLES, "postgres")),
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO PUBLIC",
    *(f"CREATE SCHEMA {role} AUTHORIZATION {role}" for role in ("mine", "theirs", "reading", "guest")),
    *(SPY.format(schema=schema) for schema in ("mine", "theirs", "reading", "guest")),
    *(f"ALTER FUNCTION {schema}.spy() OWNER TO {schema}" for schema in ("mine", "theirs", "reading", "guest")),
    "GRANT USAGE ON SCHEMA mine, theirs, reading, guest TO PUBLIC",
    "GRANT CREATE ON SCHEMA mine TO guest",
    "SELECT neural.grant_owner('mine')",
    "SELECT neural.grant_owner('theirs')",
    "SELECT neural.grant_reader('reading')",
    "SELECT neural.grant_reader('guest')",
    "SELECT neural.grant_application('writing')",
    "SELECT neural.grant_worker('encoding')",
]

TABLE = [
    "CREATE TABLE {0}.notes (id int PRIMARY KEY, body text)",
    "SELECT neural.watch('{0}.notes', '{{body}}', encoder => 'hash')",
    "INSERT INTO {0}.notes SELECT n, 'a fox of {0} ' || n FROM generate_series(1, 3) n",
]

KEPT = {
    "rows of the other tenant": "SELECT * FROM theirs.notes",
    "chunks of the other tenant": "SELECT * FROM theirs.notes_search",
    "words of the other tenant": "SELECT * FROM theirs.notes_search_terms",
    "spaces": "SELECT id, source, attribute, chunk_table, encoder, revision, options, reads, watched, owner FROM neural.spaces"
    " CROSS JOIN LATERAL (SELECT relowner AS owner FROM pg_class WHERE oid = relation) o WHERE source NOT LIKE 'mine.%'",
    "changes": "SELECT c.* FROM neural.changes c JOIN neural.spaces s ON s.id = c.space_id WHERE s.source NOT LIKE 'mine.%'",
    "pending": "SELECT c.* FROM neural.pending c JOIN neural.spaces s ON s.id = c.space_id WHERE s.source NOT LIKE 'mine.%'",
    "failed": "SELECT c.* FROM neural.failed c JOIN neural.spaces s ON s.id = c.space_id WHERE s.source NOT LIKE 'mine.%'",
    "counts": "SELECT c.* FROM neural.term_counts c JOIN neural.spaces s ON s.id = c.space_id"
    " WHERE s.source NOT LIKE 'mine.%'",
    "vectors": "SELECT owner, encoder, hash, embedding FROM neural.vectors WHERE owner = 'theirs'",
    "the collection": "SELECT * FROM neural.documents",
    "the schema's version": "SELECT * FROM neural.alembic_version",
    "rights of roles": "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles",
    "members of roles": "SELECT roleid, member, admin_option FROM pg_auth_members",
    "functions of ours": "SELECT oid, proowner, prosrc FROM pg_proc WHERE pronamespace = 'neural'::regnamespace",
    "triggers of the other tenant": "SELECT tgname FROM pg_trigger WHERE tgrelid = 'theirs.notes'::regclass",
    "grants on tables": "SELECT oid, relacl FROM pg_class WHERE relnamespace IN ('theirs'::regnamespace, 'neural'::regnamespace)",
}


class Place:
    """A template with two tenants, each with a search; every input gets a copy of it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        for statement in SETUP:
            execute(server.start(), statement)
        url = new_database(server)
        with Database(url) as database:
            database.upgrade()
            database.collection("foxes", encoder="hash").index([{"id": "1", "text": "a fox of everybody"}])
        for statement in PLACE:
            execute(url, statement)
        for owner in ("mine", "theirs"):
            for statement in TABLE:
                execute(as_(owner, url), statement.format(owner))
        for statement in (
            "GRANT SELECT ON mine.notes TO reading",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON mine.notes TO writing",
        ):
            execute(as_("mine", url), statement)
        execute(url, "SELECT neural.grant_worker('encoding')")
        execute(url, "CREATE TABLE public.of_theirs AS SELECT id FROM neural.spaces WHERE source = 'theirs.notes'")
        execute(url, "GRANT SELECT ON public.of_theirs TO PUBLIC")
        self.url = url
        work(self)
        self.template = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self.bare = url

    def copied(self) -> Place:
        """Return a copy, with a database of its own."""
        copy = Place.__new__(Place)
        copy.server, copy.template, copy.bare = self.server, self.template, self.bare
        copy.url = new_database(self.server, str(self.template))
        execute(copy.url, f"GRANT CREATE ON DATABASE {psycopg.conninfo.conninfo_to_dict(copy.url)['dbname']} TO maker")
        return copy

    def drop(self) -> None:
        """Remove the database."""
        name = psycopg.conninfo.conninfo_to_dict(self.url)["dbname"]
        execute(self.server.start(), f"DROP DATABASE {name} WITH (FORCE)")

    def state(self) -> dict[str, Any]:
        """What must not change."""
        found: dict[str, Any] = {}
        with psycopg.connect(self.url, autocommit=True) as connection:
            for name, query in KEPT.items():
                hashed = f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM ({query}) t"
                try:
                    found[name] = connection.execute(hashed.encode()).fetchone()
                except psycopg.Error as error:
                    found[name] = type(error).__name__
        return found

    def executed_by(self) -> set[str]:
        """Return the roles that executed what was laid out for them."""
        roles = (*ROLES, "postgres")
        return {role for role in roles if execute(self.url, f"SELECT is_called FROM public.seen_{role}") == [(True,)]}


def as_(role: str, url: str) -> str:
    """Return the URL with which a role logs in."""
    return make_conninfo(url, user=role)


def work(p: Place) -> None:
    """Have the worker do what there is to do."""
    with suppress(PgneuralError, SQLAlchemyError, psycopg.Error):
        Worker(as_("encoding", p.url), concurrency=1).run(once=True)


@contextmanager
def place(server: EmbeddedServer) -> Iterator[Place]:
    """Make the place."""
    yield Place(server)


Step = tuple[str, str]


@dataclass(frozen=True)
class Attempt:
    """What somebody tries.

    Attributes:
        steps: Statements, and who runs each; what the server refuses is passed over.
        reads: A statement that must find nothing, and who runs it.
        works: Whether a worker runs afterwards.
        victim: What a superuser or another client does afterwards, who is not to execute anything of the attacker.
    """

    steps: Sequence[Step] = ()
    reads: Step | None = None
    works: bool = False
    victim: Callable[[Place], None] | None = None


def attempted(attempt: Attempt, origin: Place) -> list[str]:
    """Try it in a copy; return its effects."""
    p = origin.copied()
    try:
        before = p.state()
        for role, statement in attempt.steps:
            refused(as_(role, p.url), statement)
        if attempt.works:
            work(p)
        if attempt.victim:
            with suppress(PgneuralError, SQLAlchemyError, psycopg.Error):
                attempt.victim(p)
        effects = [f"executed as {role}" for role in sorted(p.executed_by() - {role for role, _ in attempt.steps})]
        if attempt.reads and (found := refused(as_(attempt.reads[0], p.url), attempt.reads[1])):
            effects.append(f"{attempt.reads[0]} read {found[0]}")
        effects += differences(before, p.state())
        execute(p.url, "DO $$ DECLARE r text; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE rolsuper AND rolname <> "
                       "'postgres' AND rolname = ANY('{" + ",".join(ROLES) + "}') LOOP EXECUTE format('ALTER ROLE %I "
                       "NOSUPERUSER', r); END LOOP; END $$")  # fmt: skip
        return effects
    finally:
        p.drop()


def spying(schema: str, signature: str, returns: str, value: str, kind: str = "FUNCTION") -> str:
    """Return the statement for a function that tells who executed it."""
    body = CALL.format(schema=schema)
    ends = f"RETURN {value};" if kind == "FUNCTION" else ""
    made = f" RETURNS {returns}" if kind == "FUNCTION" else ""
    return f"CREATE {kind} {signature}{made} LANGUAGE plpgsql AS $f$ BEGIN {body} {ends} END $f$"


def typed(schema: str, text: str = "a fox") -> list[str]:
    """Return the statements for a type whose casts to text and integer tell who executed them."""
    casts = [("text", f"'{text}'"), ("bigint", "1"), ("jsonb", "'[[1]]'"), ("text[]", "'{x}'")]
    return [
        f"CREATE TYPE {schema}.odd AS (a text)",
        *(
            statement
            for n, (target, value) in enumerate(casts)
            for statement in (
                spying(schema, f"{schema}.cast{n}({schema}.odd)", target, value),
                f"CREATE CAST ({schema}.odd AS {target}) WITH FUNCTION {schema}.cast{n}({schema}.odd) AS IMPLICIT",
            )
        ),
    ]
