"""Documents that are run: every snippet of the README and of sql/README.md, in order, as a new user would."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from pgneural import Database
from pgneural.cli import main
from pgneural.store.embedded import EmbeddedServer
from tests.docs.forking import ForkingServer
from tests.fixtures.postgres import throw_away

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|sh|sql|diff)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> list[tuple[str, str, str]]:
    """Return language, file (empty for what is to be run) and text of every block."""
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def write(path: Path, language: str, code: str) -> None:
    """Write a block that names a file; one with a * says what is in a file that is there."""
    if "*" in path.name:
        (found,) = path.parent.glob(path.name)
        written = {ast.dump(node) for node in ast.walk(ast.parse(found.read_text())) if isinstance(node, ast.Expr)}
        assert all(ast.dump(node) in written for node in ast.parse(code).body), found.read_text()
    elif language == "diff":
        text, before = path.read_text(), ""
        for line in code.splitlines():
            if line.startswith("+"):
                assert before in text
                text = text.replace(before, f"{before}\n{line[1:]}", 1)
            before = line[1:]
        path.write_text(text)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pgneural-home-"))
    yield folder
    throw_away(EmbeddedServer(folder / ".local" / "share" / "pgneural"))
    shutil.rmtree(folder, ignore_errors=True)


RUNNERS = {
    "python": ["python", "-W", "error", "-"],
    "sh": ["bash", "-eu", "-o", "pipefail"],
    "sql": ["pgneural", "db", "psql", "--set", "ON_ERROR_STOP=1"],
}

REAL = ("alembic init", "pgneural db status", 'encoder="hash", language="simple"')
"""What is in blocks whose programs are started as a user's are; the others are forked from a process that is ready."""


@pytest.mark.model
def test_readme_snippets_run_in_order(home: Path) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PGNEURAL_", "XDG_"))}
    environment["HOME"] = str(home)
    environment["DATABASE_URL"] = f"postgresql+psycopg://postgres@/postgres?host={home}/.local/share/pgneural/postgres"
    found = blocks(ROOT / "README.md")
    assert {language for language, file, _ in found if not file} == set(RUNNERS)
    said, really = "", set()
    with ForkingServer() as ready:

        def run(language: str, code: str) -> subprocess.CompletedProcess[str]:
            real = any(text in code for text in REAL)
            environment["PATH"] = programs if real else f"{ready.folder}:{programs}"
            command = ["/usr/bin/env", *RUNNERS[language]]
            return subprocess.run(
                command, input=code, cwd=home, env=environment, capture_output=True, text=True, timeout=100
            )

        failing = run("python", "print(1 / 0)")
        assert (failing.returncode, "ZeroDivisionError" in failing.stderr) == (1, True)
        assert run("sh", "pgneural no-such-command | cat").returncode == 2
        for language, file, code in found:
            if file:
                write(home / file, language, code)
                continue
            really |= {text for text in REAL if text in code}
            result = run(language, code)
            assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
            said += result.stdout
    assert really == set(REAL)
    shown = (
        "Vaccines A vaccine shows the body",
        "Bread",
        "How long does bread keep?",
        "lines: 1 documents",
        "tips",
        "1 row to be",
    )
    assert all(expected in said for expected in shown), said


ANSWERS: dict[str, object] = {
    "neural.score(": 0.7071,
    "text_search_configuration": "german",
    "max_sim": 1.0,
    "FROM neural.query_parts(": ("demanded", "lazy dog"),
    "qualified": "pg_catalog.pg_class",
    "FROM neural.query_terms(": ("fox", 1, Decimal("0.69")),
    "FROM neural.status": ("neural.documents", "foxes", "main", 0, None, 1),
    "neural.retry": 1,
    "row_count": 2,
    "FROM neural.collections": ("foxes", 2, 2, False),
}
"""What statements of sql/README.md answer first in a database with a few rows; the others answer something."""


def test_sql_readme_snippets_answer_what_they_say(url: str) -> None:
    with Database(url) as database:
        foxes = database.collection("foxes", encoder="hash")
        foxes.index([{"id": "1", "text": "quick foxes"}, {"id": "2", "text": "a lazy dog"}])
    answered: dict[str, tuple[object, ...]] = {}
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO neural.failed SELECT id, '{\"id\": 1}', 'too odd', 5, now() FROM neural.spaces")
        for _, _, code in blocks(ROOT / "sql" / "README.md"):
            for statement in filter(str.strip, code.split(";")):
                first, *_ = connection.execute(statement.encode()).fetchall()
                assert any(value is not None for value in first) or "neural.unreadable" in statement, statement
                answered |= {piece: first for piece in ANSWERS if piece in statement}
    rounded = {
        piece: tuple(round(value, 4) if isinstance(value, float) else value for value in row)
        for piece, row in answered.items()
    }
    expected = {piece: row if isinstance(row, tuple) else (row,) for piece, row in ANSWERS.items()}
    assert rounded == expected


def test_every_function_and_view_is_commented_and_listed(url: str) -> None:
    text = (ROOT / "sql" / "README.md").read_text()
    with psycopg.connect(url) as connection:
        objects = connection.execute(
            "SELECT proname, obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'neural'::regnamespace "
            "UNION ALL SELECT relname, obj_description(oid, 'pg_class') FROM pg_class "
            "WHERE relnamespace = 'neural'::regnamespace AND relkind IN ('v', 'r') AND relname <> 'alembic_version'"
        ).fetchall()
        listed = [name for name, _ in objects if f"`neural.{name}`" in text]
    assert all(comment for _, comment in objects), objects
    assert set(listed) >= {"score", "row_count", "collections"}
    functions = [name for name, _ in objects if name not in TABLES]
    assert sorted(listed) == sorted(functions)


TABLES = {
    *("documents", "spaces", "sql_files", "term_counts", "corpus_counts", "pending"),
    *("changes", "failed", "vectors", "workers", "work"),
}


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for name in main.commands:
        assert f"pgneural {name}" in text or f"make {name}" in text, name
