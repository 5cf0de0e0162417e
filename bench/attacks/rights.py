"""Roles that try to gain rights, or to see and change what is not theirs, through anything of ours."""

# ruff: noqa: E501, S608 — a statement of an attack is a line

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from bench.attacks import Group, Input, execute, refused
from bench.attacks.tenants import SPY, Attempt, Place, as_, attempted, place, spying, typed, work
from pgneural import Database
from pgneural.errors import PgneuralError


def _triggers() -> Iterator[tuple[str, Attempt]]:
    """Trigger functions of ours on tables of one's own, whose columns have types of one's own."""
    for function, role in itertools.product(
        ("forget_changes", "note_documents", "note_changes", "count_terms", "guard_space"), ("reading", "mine", "guest")
    ):
        bait = f"{role}.bait"
        columns = ", ".join(
            f"{name} {role}.odd" for name in ("space_id", "keys", "version", "language", "lexemes", "id", "collection")
        )
        fires = "AFTER DELETE ON {} REFERENCING OLD TABLE AS {} FOR EACH STATEMENT EXECUTE FUNCTION neural.{}({})"
        steps = [
            *typed(role),
            f"CREATE TABLE {bait} ({columns})",
            f"INSERT INTO {bait} (space_id) VALUES (ROW('x'))",
            *(
                f"CREATE TRIGGER t{n} " + fires.format(bait, table, function, arguments)
                for n, (table, arguments) in enumerate(
                    [("dropped", ""), ("removed", "''"), ("counted", ""), ("old_rows", "'theirs.notes', ''")]
                )
            ),
            f"CREATE TRIGGER row BEFORE DELETE ON {bait} FOR EACH ROW EXECUTE FUNCTION neural.{function}()",
            f"DELETE FROM {bait}",
        ]
        yield f"{role} puts neural.{function}() on a table with types of its own", Attempt([(role, s) for s in steps])


WRITE = ("writing", "UPDATE mine.notes SET body = DEFAULT WHERE id = 1")


def _types() -> Iterator[tuple[str, Attempt]]:
    """Watched columns of types whose code is the owner's, when the worker reads."""
    made = {
        "a composite with a cast": [*typed("mine"), "ALTER TABLE mine.notes ALTER body TYPE mine.odd USING ROW(body)"],
        "a domain with a check": [
            "CREATE DOMAIN mine.checked AS text CHECK (mine.spy())",
            "ALTER TABLE mine.notes ALTER body TYPE mine.checked",
        ],
        "a key of a domain with a check": [
            "CREATE DOMAIN mine.checked AS int CHECK (mine.spy())",
            "ALTER TABLE mine.notes ALTER id TYPE mine.checked",
        ],
        "an enum with a cast": [
            "CREATE TYPE mine.mood AS ENUM ('a')",
            spying("mine", "mine.shown(mine.mood)", "text", "'x'"),
            "CREATE CAST (mine.mood AS text) WITH FUNCTION mine.shown(mine.mood)",
            "ALTER TABLE mine.notes ALTER body TYPE mine.mood USING 'a'",
        ],
    }
    for name, statements in made.items():
        steps = [("mine", s) for s in (*statements, "UPDATE mine.notes SET id = id + 10")]
        yield f"a watched column gets {name}", Attempt(steps, works=True)


SHADOWS = {
    "lower(text)": ("text", "'x'"), "cardinality(smallint[])": ("int", "1"), "length(tsvector)": ("int", "1"),
    "to_tsvector(regconfig, text)": ("tsvector", "'x'"), "md5(text)": ("text", "'x'"), "sha256(bytea)": ("bytea", "''"),
    "format(text, text)": ("text", "'x'"), "format(text, text, text)": ("text", "'x'"), "coalesce_(text)": ("text", "'x'"),
    "convert_to(text, text)": ("bytea", "''"), "concat_ws(text, text, text)": ("text", "'x'"),
    "jsonb_build_array(integer)": ("jsonb", "'[1]'"), "normalize(text, text)": ("text", "'x'"),
    "unnest(tsvector)": ("text", "'x'"), "array_length(smallint[], integer)": ("int", "1"),
    "quote_ident(name)": ("text", "'x'"), "to_jsonb(integer)": ("jsonb", "'1'"), "row_security_active(regclass)": ("bool", "false"),
}  # fmt: skip

OPERATORS = {
    "=": ("text, text", "boolean", "true"),
    "||": ("text, text", "text", "'x'"),
    "<>": ("int, int", "boolean", "true"),
}


def _shadowed(schema: str, owner: str) -> list[str]:
    """Return what is to be found before the server's own."""
    functions = [spying(owner, f"{schema}.{signature}", *made) for signature, made in SHADOWS.items()]
    operators = []
    for n, (name, (arguments, returns, value)) in enumerate(OPERATORS.items()):
        left, right = arguments.split(", ")
        operators += [
            spying(owner, f"{schema}.operates{n}({arguments})", returns, value),
            f"CREATE OPERATOR {schema}.{name} (FUNCTION = {schema}.operates{n}, LEFTARG = {left}, RIGHTARG = {right})",
        ]
    tables = [
        f"CREATE VIEW {schema}.{name} AS SELECT {owner}.spy() AS id" for name in ("spaces", "pg_class", "pg_roles")
    ]
    return [*functions, *operators, *tables]


def _shadows() -> Iterator[tuple[str, Attempt]]:
    """Functions, operators and tables that are found before the server's, in a schema that others can write to."""
    written = ("writing", "UPDATE mine.notes SET body = 'an owl' WHERE id = 1")
    everything = _shadowed("mine", "guest")
    for statement in everything[: len(SHADOWS)]:
        name = statement.partition("FUNCTION ")[2].partition(" RETURNS")[0]
        yield f"guest makes {name}, and a worker works", Attempt([("guest", statement), written], works=True)
    steps = [("guest", statement) for statement in everything]
    yield "guest shadows everything, and a worker works", Attempt([*steps, written], works=True)
    victims: dict[str, Callable[[Place], None]] = {
        "the owner reconciles": lambda p: _do(p, "mine", "SELECT * FROM neural.reconcile('mine.notes')"),
        "the owner drops and makes the search": lambda p: _do(
            p,
            "mine",
            "SELECT neural.unwatch('mine.notes')",
            "SELECT neural.watch('mine.notes', '{body}', encoder => 'hash')",
        ),
        "the owner makes and switches a space": lambda p: _do(
            p,
            "mine",
            "SELECT neural.create_space('mine.notes', 'search', 'new', 'hash', 64)",
            "SELECT neural.switch_space('mine.notes', 'search', 'new', true)",
        ),
        "others write": lambda p: _do(p, "writing", "SET search_path = public", "DELETE FROM mine.notes WHERE id = 1"),
    }
    for name, victim in victims.items():
        yield f"guest shadows everything in the source's schema, and {name}", Attempt(steps, victim=victim)


def _do(p: Place, role: str, *statements: str) -> None:
    for statement in statements:
        refused(as_(role, p.url), statement)


def _squatting() -> Iterator[tuple[str, Attempt]]:
    """Schemas of the name of a role are first in its search path."""
    victims: dict[str, tuple[str, Callable[[Place], None]]] = {
        "db upgrade and db check": ("postgres", _upgrade),
        "grants": (
            "postgres",
            lambda p: _do(
                p,
                "postgres",  # what they have already: the grants themselves change nothing
                *(f"SELECT neural.grant_{g}" for g in ("reader('guest')", "owner('mine')", "worker('encoding')")),
            ),
        ),
        "a search of a table": (
            "postgres",
            lambda p: _do(
                p,
                "postgres",
                "CREATE TABLE public.own (id int PRIMARY KEY, body text)",
                "SELECT neural.watch('public.own', '{body}', encoder => 'hash')",
                "INSERT INTO public.own VALUES (1, 'x')",
                "SELECT * FROM neural.reconcile('public.own')",
                "SELECT neural.unwatch('public.own')",
            ),
        ),
        "searches and status of collections": ("postgres", _searches),
        "the worker": ("encoding", work),
    }
    for name, (role, victim) in victims.items():
        steps = [f"CREATE SCHEMA {role}", SPY.format(schema=role), f"GRANT USAGE ON SCHEMA {role} TO PUBLIC"]
        steps += _shadowed(role, role)
        attempt = Attempt([("maker", step) for step in steps], victim=victim)
        yield f"maker shadows everything in a schema named {role}, then {name}", attempt


def _upgrade(p: Place) -> None:
    execute(p.url, "DELETE FROM neural.sql_files")
    with Database(p.url) as database:
        database.upgrade()
        database.check()


def _searches(p: Place) -> None:
    with Database(p.url) as database:
        database.existing("foxes").search("fox")
        database.existing("foxes").facets("external_id", where="true OR false")
        database.status()
        database.work()


def _ours() -> Iterator[tuple[str, Attempt]]:
    """What owners may put on the tables that a worker writes."""
    spy = "CREATE FUNCTION mine.told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mine.spy(); RETURN NEW; END $$"
    for table in ("mine.notes_search", "mine.notes_search_terms"):
        made = {
            "a trigger for each row": [
                spy,
                f"CREATE TRIGGER told BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION mine.told()",
            ],
            "a constraint trigger at the end": [
                spy,
                f"CREATE CONSTRAINT TRIGGER told AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION mine.told()",
            ],
            "a check": [f"ALTER TABLE {table} ADD CHECK (mine.spy())"],
            "a default": [f"ALTER TABLE {table} ADD extra boolean DEFAULT mine.spy()"],
            "a generated column": [
                "ALTER FUNCTION mine.spy() IMMUTABLE",
                f"ALTER TABLE {table} ADD extra boolean GENERATED ALWAYS AS (mine.spy()) STORED",
            ],
            "an index of an expression": [
                "ALTER FUNCTION mine.spy() IMMUTABLE",
                f"CREATE INDEX ON {table} ((mine.spy()))",
            ],
            "a policy": [
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
                f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
                f"CREATE POLICY p ON {table} USING (mine.spy())",
            ],
            "a rule": [f"CREATE RULE r AS ON INSERT TO {table} DO ALSO SELECT mine.spy()"],
            "a rule into another tenant's table": [
                f"CREATE RULE r AS ON INSERT TO {table} DO ALSO DELETE FROM theirs.notes"
            ],
            "a view in its place": [
                f"ALTER TABLE {table} RENAME TO old",
                f"CREATE VIEW {table} AS SELECT o.* FROM mine.old o WHERE mine.spy()",
            ],
            "a view of another tenant's rows in its place": [
                f"DROP TABLE {table} CASCADE",
                f"CREATE VIEW {table} AS SELECT * FROM {table.replace('mine.', 'theirs.')}",
            ],
        }
        for name, statements in made.items():
            steps = [("mine", s) for s in (*statements, "UPDATE mine.notes SET body = body || ' an owl'")]
            yield f"{table} gets {name}", Attempt(steps, works=True)
    views = {
        "of the other tenant's rows": "SELECT * FROM theirs.notes",
        "with a function": "SELECT 1 AS id, 'x'::text AS body WHERE mine.spy()",
    }
    for name, query in views.items():
        steps = [("mine", "ALTER TABLE mine.notes RENAME TO hidden"), ("mine", f"CREATE VIEW mine.notes AS {query}")]
        steps += [("mine", "UPDATE mine.hidden SET body = 'an owl'")]
        reads = ("mine", "SELECT text FROM mine.notes_search WHERE text LIKE '%theirs%'")
        yield f"a view {name} in place of the source", Attempt(steps, reads, works=True)


def _catalog() -> Iterator[tuple[str, Attempt]]:
    """Every table of the catalog, read and changed by who has nothing to do with the other tenant's source."""
    tables = ("spaces", "changes", "pending", "failed", "term_counts", "corpus_counts", "vectors", "work")
    for table, role in itertools.product(tables, ("mine", "reading", "writing", "guest")):
        key = "owner" if table == "vectors" else "id" if table == "spaces" else "space_id"
        about = "owner = 'theirs'" if table == "vectors" else f"{key} = (SELECT id FROM public.of_theirs)"
        steps = [
            f"UPDATE neural.{table} SET {key} = {key} WHERE true",
            f"UPDATE neural.{table} SET {'options' if table == 'spaces' else key} = DEFAULT WHERE {about}",
            f"DELETE FROM neural.{table} WHERE {about}",
            f"INSERT INTO neural.{table} SELECT * FROM neural.{table} WHERE {about}",
            f"TRUNCATE neural.{table} CASCADE",
            f"DROP TABLE neural.{table} CASCADE",
            f"ALTER TABLE neural.{table} DISABLE ROW LEVEL SECURITY",
            f"CREATE TRIGGER t BEFORE INSERT ON neural.{table} FOR EACH ROW EXECUTE FUNCTION mine.told()",
            f"CREATE RULE r AS ON SELECT TO neural.{table} DO INSTEAD SELECT 1",
            f"CREATE POLICY open ON neural.{table} USING (true)",
        ]
        reads = (role, f"SELECT * FROM neural.{table} WHERE {about}") if role in ("mine", "guest") else None
        yield f"{role} reads and changes neural.{table}", Attempt([(role, s) for s in steps], reads)


def _forged() -> Iterator[tuple[str, Attempt]]:
    """Functions of ours, called for the source of another."""
    calls = [
        "collect({0})", "take({0}, 9, true)", "claim({0}, 'x', 9, '1 hour')", "release({0}, 'x', '[[1]]')",
        "fail({0}, 'x', '[]', 1)", "retry({0})", "index_words({0}, '[[1]]')", "recount({0})", "write_counts({0})",
        "fold_counts({0})", "follow({0})", "reconcile('theirs.notes')", "rebuild_triggers({0})", "unwatch('theirs.notes')",
        "unwatch_spaces(ARRAY[{0}])", "unwatch_table('notes_search', 'theirs')", "mark_all({0}, 'theirs.notes')",
        "create_space('theirs.notes', 'search', 'new', 'hash', 64)", "switch_space('theirs.notes', 'search', 'new', true)",
        "watch('theirs.notes', '{{body}}', attribute => 'b', encoder => 'hash')", "make_index({0})", "make_tables({0})",
        "follow_source('theirs.notes_search', 'mine.notes')", "follow_row_security('theirs.notes_search', 'mine.notes')",
        "grant_worker('{1}')", "grant_owner('{1}')", "grant_application('{1}')", "work_as_owner({0})",
        "watch_table('theirs.notes', 'notes_search', '', '{{body}}')", "drop_space('theirs.notes', 'search', 'main')",
        "watch_documents()", "add_vectors('theirs.notes', 'search', 'sparse', '/srv/model', 30)",
        "make_vectors({0}, 'sparse', '/srv/model', 30, '', '{{}}')", "drop_vectors('theirs.notes', 'search')",
        "drop_vectors_of({0})", "bind_vectors({0})", "count_words_of('theirs.notes_search_terms')",
        "drop_search_table('theirs.notes_search', 'theirs.notes')", "drop_search_table('theirs.notes_search', 'mine.notes')",
    ]  # fmt: skip
    for call in calls:
        steps = [
            (role, f"SELECT neural.{call.format(number, role)}")
            for role in ("mine", "reading", "guest")
            for number in (1, 2, 3)
        ]
        yield f"others call neural.{call.format('…', '…')}", Attempt(steps)


def _notes() -> Iterator[tuple[str, Attempt]]:
    """Notes, vectors and names that are forged by who may write."""
    made = {
        "a note for another table": [
            ("writing", "INSERT INTO neural.changes (space_id, keys, rows) SELECT n, '[[1]]', 1 FROM generate_series(2, 3) n"),
            ("mine", "INSERT INTO neural.changes (space_id, keys, rows) VALUES (3, '[[1]]', 1)"),
        ],
        "a note whose keys are no keys": [
            ("mine", "INSERT INTO neural.changes (space_id, keys, rows) VALUES (2, '[[\"1); DROP TABLE theirs.notes; --\"]]', 1)")
        ],
        "a vector for another owner": [
            ("mine", "INSERT INTO neural.vectors (owner, encoder, revision, hash, embedding) SELECT 'theirs', 'hash', '', n::text::bytea, '[1]' FROM generate_series(1, 9) n")
        ],
        "a chunk table of another": [("mine", "UPDATE neural.spaces SET chunk_table = '../theirs.notes_search'")],
        "the other tenant's source": [("mine", "UPDATE neural.spaces SET source = 'theirs.notes', relation = c.oid FROM pg_class c WHERE c.oid = to_regclass('theirs.notes')")],
        "the other tenant's relation": [("mine", "UPDATE neural.spaces SET relation = (SELECT oid FROM pg_class c WHERE relname = 'notes' AND relnamespace = 'theirs'::regnamespace)")],
        "a statement that reads another table": [("mine", "UPDATE neural.spaces SET reads = 'SELECT id, body FROM theirs.notes', reconciled = NULL")],
        "a statement with a function": [("mine", "UPDATE neural.spaces SET reads = reads || ' WHERE mine.spy()'")],
        "a storage that is SQL": [("mine", "UPDATE neural.spaces SET storage = 'vector); DROP TABLE theirs.notes; --'")],
        "a language that is SQL": [("mine", "UPDATE neural.spaces SET language = 'simple''); DROP TABLE theirs.notes; --'")],
        "columns that are SQL": [("mine", "UPDATE neural.spaces SET watched = '{\"mine.notes\": [\"body) ; DROP TABLE theirs.notes; --\"]}'")],
        "an index that is SQL": [("mine", "UPDATE neural.spaces SET vector_index = '{\"method\": \"hnsw\", \"precision\": \"full\", \"options\": {\"m = 1); DROP TABLE theirs.notes; --\": \"1\"}}'"), ("mine", "SELECT neural.make_index(2)")],
    }  # fmt: skip
    for name, steps in made.items():
        reads = ("mine", "SELECT text FROM mine.notes_search WHERE text LIKE '%theirs%'")
        yield f"{name} is forged", Attempt([*steps, WRITE], reads, works=True)


CODE = "from pathlib import Path\nPath(r'{marker}').touch()\n"


class _Evil:
    """Pickled weights that run code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def _folder(p: Place) -> tuple[Path, Path]:
    """Make the folder of a model that leaves a mark when it is loaded as it asks."""
    folder = p.server.directory / "model"
    marker = folder / "loaded"
    folder.mkdir(exist_ok=True)
    marker.unlink(missing_ok=True)
    for module in ("modeling_evil.py", "__init__.py", "evil.py"):
        (folder / module).write_text(CODE.format(marker=marker))
    (folder / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoModel": "modeling_evil.Evil",'
                                        ' "AutoConfig": "modeling_evil.Config"}, "hidden_size": 8}')  # fmt: skip
    (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]')
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil(marker)))
    return folder, marker


def _models() -> Iterator[Input]:
    """Encoders that the catalog names: neither a worker nor a client loads what the host has not permitted."""
    names = {
        "a folder": ("{}", "{}"), "a folder with dots": ("{}/../model", "{}"), "a URL": ("file://{}", "{}"),
        "a folder whose code is to be trusted": ("{}", '{{"trust_remote_code": true}}'),
        "a permitted encoder with the name of a folder": ("hash", '{{"name": "{}"}}'),
        "a permitted encoder with code": ("hash", '{{"trust_remote_code": true}}'),
        "a permitted encoder with a cache": ("minilm", '{{"cache_folder": "{}", "model_kwargs": {{"x": 1}}}}'),
        "a module": ("evil:Evil", "{}"), "a name on the hub": ("somebody/model", '{{"trust_remote_code": true}}'),
    }  # fmt: skip
    for name, (encoder, options) in names.items():
        yield Input(f"the catalog names {name}", partial(_loaded, encoder, options))


def _loaded(encoder: str, options: str, origin: Place) -> list[str]:
    p = origin.copied()
    try:
        folder, marker = _folder(p)
        execute(p.url, "ALTER TABLE neural.spaces DISABLE TRIGGER USER")
        execute(
            p.url,
            "UPDATE neural.spaces SET encoder = %s, options = %s",
            encoder.format(folder),
            options.format(folder) if options != "{}" else "{}",
        )
        refused(as_("mine", p.url), "UPDATE mine.notes SET body = 'an owl'")
        work(p)
        with suppress(PgneuralError, SQLAlchemyError, psycopg.Error), Database(p.url) as database:
            database.existing("foxes").search("fox")
        return ["code of the model was run"] if marker.exists() else []
    finally:
        p.drop()


def _unpickled(p: Place) -> list[str]:
    folder, marker = _folder(p)
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    return ["code of the model was run"] if marker.exists() else []


CONTROLS = {
    "the same function as SECURITY DEFINER of a superuser": Attempt(
        [("reading", "SELECT public.open()")],
        victim=None,
    ),
    "a cast that a superuser calls": Attempt(
        [("mine", s) for s in typed("mine")], victim=lambda p: _do(p, "postgres", "SELECT ROW('x')::mine.odd::text")
    ),
    "functions in a schema of a superuser's name": Attempt(
        [
            ("maker", s)
            for s in ("CREATE SCHEMA postgres", SPY.format(schema="postgres"), *_shadowed("postgres", "postgres"))
        ],
        victim=lambda p: _do(p, "postgres", "SELECT format('%I'::text, 'x'::text)"),
    ),
    "a delete with the rights of the other tenant": Attempt(
        [("theirs", "DELETE FROM theirs.notes")],
    ),
    "a read with the rights of the other tenant": Attempt(reads=("theirs", "SELECT * FROM neural.spaces")),
}


def _defined(attempt: Attempt, origin: Place) -> list[str]:
    p = origin.copied()
    try:
        execute(p.url, SPY.format(schema="public").replace(".spy()", ".open()") + " SECURITY DEFINER")
        for role, statement in attempt.steps:
            refused(as_(role, p.url), statement)
        return [f"executed as {role}" for role in p.executed_by() - {"reading"}]
    finally:
        p.drop()


# what takes over a superuser comes last: memberships of roles are the server's, and would help what comes after
PARTS = (_triggers, _types, _shadows, _ours, _catalog, _forged, _notes, _squatting)

GROUP = Group(
    "rights",
    place,
    [
        *(Input(name, partial(attempted, attempt)) for part in PARTS for name, attempt in part()),
        *_models(),
    ],
    [
        *(
            Input(name, partial(_defined if "DEFINER" in name else attempted, attempt))
            for name, attempt in CONTROLS.items()
        ),
        Input("a pickled model that is loaded", _unpickled),
    ],
)
