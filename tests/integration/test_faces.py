"""What the command line prints of documents, names and errors that others have written."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgneural import Database, Record
from pgneural.cli import main

STEERING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
HOSTILE = "a\x1b]0;owned\x07b\x9b31m\u202ec\u2066d\u200be\u2028f\x7fg\ufeffh"

Run = Callable[..., Result]


@pytest.fixture
def run(url: str) -> Run:
    """Run the command line in this process."""

    def execute(*arguments: str, **options: Any) -> Result:
        return CliRunner(env={"PGNEURAL_DATABASE_URL": url}, **options).invoke(main, list(arguments))

    return execute


@pytest.fixture
def hostile(db: Database) -> str:
    name = "evil\u00e9"
    made = db.collection(name, encoder="hash")
    made.index([Record(HOSTILE, f"fox {HOSTILE}", HOSTILE, metadata={HOSTILE: HOSTILE}), Record("2", "fox plain")])
    return name


def test_no_command_prints_what_steers_a_terminal(run: Run, hostile: str, tmp_path: Path) -> None:
    qrels, queries = tmp_path / f"q\x1b[1m{'x'}", tmp_path / "queries.tsv"
    queries.write_text("1\tfox\n")
    by = "title"
    commands: list[tuple[int, tuple[str, ...]]] = [
        (0, ("search", hostile, f"fox {HOSTILE}")),
        (0, ("search", hostile, "fox", "--explain")),
        (0, ("search", hostile, "fox", "--json")),
        (0, ("search", hostile, "fox", "--explain", "--json")),
        (0, ("facets", hostile, by)),
        (0, ("facets", hostile, by, "--json")),
        (0, ("like", hostile, HOSTILE)),
        (0, ("discover", hostile, "--pair", HOSTILE, "2", "--json")),
        (0, ("status",)),
        (0, ("db", "status")),
        (1, ("search", HOSTILE, "fox")),
        (1, ("search", hostile, "fox", "--where", f'"{HOSTILE}" = 1')),
        (1, ("like", hostile, f"no {HOSTILE}")),
        (1, ("index", f"/nowhere/{HOSTILE}", "--collection", "new")),
        (1, ("index", str(queries), "--collection", HOSTILE, "--format", "text")),
        (1, ("evaluate", hostile, "--queries", str(queries), "--qrels", str(qrels))),
        (1, ("facets", hostile, f"'{HOSTILE}'::int")),
        (1, ("--debug", "search", HOSTILE, "fox")),
        (2, ("facets", hostile, "title", f"--{HOSTILE}")),
    ]
    for status, command in commands:
        result = run(*command)
        assert result.exit_code == status, (command, result.output)
        assert not STEERING.search(result.output), command
        if "--json" in command:
            assert json.loads(result.output)["collection"] == hostile


def test_json_has_the_true_values(run: Run, hostile: str) -> None:
    hits = json.loads(run("search", hostile, "fox", "--json").output)["hits"]
    (hit,) = [hit for hit in hits if hit["external_id"] != "2"]
    assert (hit["external_id"], hit["title"], hit["metadata"]) == (HOSTILE, HOSTILE, {HOSTILE: HOSTILE})


def test_a_terminal_that_knows_ascii_only(run: Run, hostile: str) -> None:
    for command in (
        ("search", hostile, "fox"),
        ("search", hostile, "fox", "--json"),
        ("status",),
        ("search", "ž", "fox"),
    ):
        result = run(*command, charset="ascii")
        assert result.exit_code == (0 if command[1:2] != ("ž",) else 1), result.output
        assert result.output.isascii()
        if "--json" in command:
            assert json.loads(result.output)["collection"] == hostile


def test_a_worker_tells_at_once_that_the_server_is_not_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pgneural.cli.worker.PATIENCE_SECONDS", 0.3)
    with caplog.at_level(logging.WARNING):
        result = CliRunner().invoke(main, ["worker", "--database", "postgresql://127.0.0.1:1/none"])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: no connection to the database")
    told = [record.getMessage() for record in caplog.records if "tried again" in record.getMessage()]
    assert len(told) == 1
