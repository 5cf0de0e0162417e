"""The command line: most of it within this process, and as processes where that is the point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click import Context, Group
from click.testing import CliRunner

from pgneural.cli import main
from pgneural.cli.options import INTERRUPTED
from tests.fixtures.tables import until
from tests.unit.test_formats import pdf

Run = Callable[..., subprocess.CompletedProcess[str]]
Process = Callable[..., "subprocess.Popen[str]"]
PROGRAM = Path(sys.executable).parent / "pgneural"


@pytest.fixture
def run(url: str) -> Run:
    """Return a function that runs a command within this process; what is no error of ours is raised."""

    def execute(
        *arguments: str | Path, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        runner = CliRunner(env={"PGNEURAL_DATABASE_URL": url, "COLUMNS": "120", **(env or {})})
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # of which a process has these
            result = runner.invoke(main, [*map(str, arguments)], catch_exceptions=False, **options)
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    return execute


@pytest.fixture
def process(url: str) -> Iterator[Process]:
    """Return a function that starts the program, as a shell does in the foreground: Ctrl-C is not ignored there."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "PGNEURAL_DATABASE_URL": url}
        return subprocess.Popen(
            [PROGRAM, *arguments], text=True, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    yield start
    signal.signal(signal.SIGINT, inherited)


def printed(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = [{"_id": str(n), "title": f"Fox {n}", "text": f"fox number {n}", "metadata": {"n": n}} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_index_search_delete(run: Run, corpus: Path) -> None:
    report = printed(run("index", corpus, "--collection", "foxes", "--encoder", "hash", "--json"))
    assert (report["inserted"], report["rejected"], report["collection"]) == (30, 0, "foxes")
    again = run("index", corpus, "--collection", "foxes")
    assert "30 documents (0 new, 0 changed, 30 unchanged), 0 bad; 0 chunks encoded" in again.stdout
    where = "(metadata->>'n')::int < 3"
    found = printed(run("search", "foxes", "fox number 2", "--where", where, "--limit", "5", "--json"))
    assert found["hits"][0]["external_id"] == "2"
    assert (len(found["hits"]), found["exhausted"], found["strategy"]) == (3, True, "exact")
    table = run("search", "foxes", "fox number 2", "--limit", "1")
    assert "Fox 2" in table.stdout
    assert printed(run("like", "foxes", "2", "--limit", "3", "--json"))["hits"][0]["external_id"] != "2"
    assert printed(run("delete", "foxes", "1", "2", "--json"))["deleted"] == 2
    assert printed(run("delete", "foxes", "--where", where, "--json"))["deleted"] == 1
    assert printed(run("delete", "foxes", "--all", "--json"))["deleted"] == 27


def test_boosts_groups_pairs_facets_and_indexes(run: Run, corpus: Path) -> None:
    printed(run("index", corpus, "--collection", "foxes", "--encoder", "hash", "--dimensions", "64", "--json"))
    boosted = printed(run("search", "foxes", "fox", "--boost", "(metadata->>'n')::int=100", "--limit", "2", "--json"))
    assert [hit["external_id"] for hit in boosted["hits"]] == ["29", "28"]
    grouped = run(
        "search", "foxes", "fox", "--group-by", "id % 3", "--aggregate", "mean", "--diversity", "0.2", "--json"
    )
    assert len(printed(grouped)["hits"]) == 3
    pairs = ("--pair", "3", "4", "--pair", "5", "6")
    found = printed(run("discover", "foxes", "fox", *pairs, "--limit", "4", "--json"))["hits"]
    assert [hit["legs"]["context"] for hit in found] == sorted((h["legs"]["context"] for h in found), reverse=True)
    unlike = printed(run("like", "foxes", "7", "8", "--unlike", "9", "--json"))["hits"]
    assert not {"7", "8", "9"} & {hit["external_id"] for hit in unlike}
    counts = printed(run("facets", "foxes", "id % 2", "--query", "fox", "--json"))["facets"]
    assert sum(count["documents"] for count in counts) == 30
    assert "documents" in run("facets", "foxes", "id % 2").stdout
    indexed = printed(run("reindex", "foxes", "--method", "ivfflat", "--lists", "4", "--json"))["vector_index"]
    assert indexed == {"method": "ivfflat", "precision": "half", "dimensions": None, "options": {"lists": 4}}
    assert run("search", "foxes", "fox", "--late", "--explain").returncode == 2


def test_modes_pages_and_explanation(run: Run, corpus: Path) -> None:
    printed(run("index", corpus, "--collection", "foxes", "--encoder", "hash", "--json"))
    for mode, legs in (("semantic", {"semantic"}), ("lexical", {"lexical"}), ("hybrid", {"semantic", "lexical"})):
        found = printed(run("search", "foxes", "fox number 2", "--mode", mode, "--limit", "3", "--json"))
        assert found["hits"][0]["external_id"] == "2"
        assert set(found["hits"][0]["legs"]) == legs
    second = printed(run("search", "foxes", "fox", "--limit", "20", "--offset", "20", "--json"))
    assert [hit["rank"] for hit in second["hits"]] == list(range(21, 31))
    explained = run("search", "foxes", "fox number 2", "--explain")
    assert "30 rows pass the filter: few enough to compare them one by one." in explained.stdout
    assert "documents_foxes_pkey" in explained.stdout
    as_json = printed(run("search", "foxes", "fox number 2", "--explain", "--json"))
    assert as_json["explanation"]["strategy"] == "exact"


def test_evaluate_and_its_gate(run: Run, corpus: Path, tmp_path: Path) -> None:
    printed(run("index", corpus, "--collection", "foxes", "--encoder", "hash", "--json"))
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text("".join(json.dumps({"_id": f"q{n}", "text": f"fox number {n}"}) + "\n" for n in range(5)))
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\t{n}\t1\n" for n in range(5)))
    files = ("--queries", queries, "--qrels", qrels)
    result = printed(run("evaluate", "foxes", *files, "--json"))
    assert (result["collection"], result["queries"]) == ("foxes", 5)
    names = ["ndcg@10", "recall@100", "mrr@10", "map", "p50_ms", "p95_ms"]
    assert {mode: list(values) for mode, values in result["modes"].items()} == dict.fromkeys(
        ("semantic", "lexical", "hybrid"), names
    )
    assert result["modes"]["lexical"]["ndcg@10"] == 1
    table = run("evaluate", "foxes", *files, "--modes", "lexical", "--fail-below", "ndcg@10=0.9")
    assert (table.returncode, "recall@100" in table.stdout) == (0, True)
    gated = run("evaluate", "foxes", *files, "--modes", "lexical", "--fail-below", "lexical:map=1.1")
    assert gated.returncode == 1
    assert gated.stderr.splitlines()[-1] == "Error: lexical: map is 1.0000, expected at least 1.1"
    wrong = run("evaluate", "foxes", *files, "--fail-below", "quality=1")
    assert (wrong.returncode, "'quality=1' is not [MODE:]MEASURE=VALUE" in wrong.stderr) == (2, True)


def test_database_commands(run: Run, empty_url: str, head: str) -> None:
    env = {"PGNEURAL_DATABASE_URL": empty_url}
    missing = run("search", "foxes", "x", env=env)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "Error: the database has no schema neural; run: pgneural db upgrade\n"
    assert run("db", "check", env=env).returncode == 1
    assert run("db", "upgrade", env=env).stdout == f"schema neural is at revision {head}\n"
    assert run("db", "check", env=env).stdout == "schema neural is as it should be\n"
    status = printed(run("db", "status", "--json", env=env))
    assert status["url"] == empty_url
    assert status["schema_revision"] == status["expected_revision"] == head
    assert status["collections"] == []
    assert status["pgvector_version"].startswith("0.")


def test_database_may_stand_before_or_after_the_command(run: Run, url: str) -> None:
    env = {"PGNEURAL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
    assert run("--database", url, "db", "status", env=env).returncode == 0
    assert run("db", "status", "--database", url, env=env).returncode == 0
    lost = run("db", "status", env=env)
    assert lost.returncode == 1
    assert lost.stderr.startswith("Error: no connection to the database: ")
    assert lost.stderr.count("\n") == 1


ERRORS = {
    ("search", "nothing", "x"): "Error: no collection 'nothing'; the database has: foxes",
    ("search", "foxes", "x", "--where", "no = 1"): 'Error: the filter does not work: column "no" does not exist; '
    "it may use the columns of documents",
    ("index", "/nowhere", "--collection", "foxes"): "Error: /nowhere: no such file, and no file of a known kind",
    ("index", "/etc/hostname", "--collection", "new", "--encoder", "nope", "--format", "text"): "Error: no encoder 'nope'; registered are",
    ("index", "/etc/hostname", "--collection", "foxes", "--encoder", "minilm", "--format", "text"): "Error: collection 'foxes' was encoded by hash, not by minilm",
    ("search", "foxes", "x", "--aggregate", "median"): "Error: aggregate is 'median', expected max, mean, sum, or top",
    ("search", "foxes", "x", "--mode", "sparse"): "Error: collection 'foxes' has no sparse vectors; open it with sparse=",
    ("search", "foxes", "x", "--boost", "likes=1"): 'Error: the boost does not work: column "likes" does not exist; ',
    ("reindex", "foxes", "--dimensions", "300"): "Error: the vectors have 256 dimensions, so an index cannot keep 300",
    ("index", "/etc/hostname", "--collection", "new", "--encoder", "hash", "--device", "cpu", "--format", "text"): "Error: encoder 'hash' cannot be made so: ",
    ("like", "foxes", "none"): "Error: collection 'foxes' has no document 'none'; index it first",
}  # fmt: skip


def test_errors_are_one_line_and_a_status(run: Run, corpus: Path) -> None:
    printed(run("index", corpus, "--collection", "foxes", "--encoder", "hash", "--json"))
    for arguments, message in ERRORS.items():
        result = run(*arguments)
        assert result.returncode == 1
        assert result.stderr.startswith(message), result.stderr
        assert result.stderr.count("\n") == 1
    debugged = run("--debug", "search", "nothing", "x")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr
    assert "UnknownCollection" in debugged.stderr


def test_bad_records_are_skipped_or_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b'{"_id": "1", "text": "good"}\n{"text": "no id"}\n{"_id": "3", "text": "also good"}\n')
    skipped = run("index", path, "--collection", "mixed", "--encoder", "hash")
    assert skipped.returncode == 0
    assert skipped.stderr == (
        f"bad record: {path}:2: no id; give each record a field _id or id or external_id, "
        "or name the field with --id-field\n"
    )
    refused = run("index", path, "--collection", "mixed", "--bad-records", "refuse")
    assert refused.returncode == 1
    assert refused.stderr.endswith("Error: 1 bad record; the other 2 documents are stored\n")


def test_standard_input_and_fields(run: Run, process: Process) -> None:
    given = json.dumps({"key": "1", "q": "why?", "a": "because", "lang": "en"})
    fields = ("--id-field", "key", "--title-field", "q", "--text-field", "a")
    with process("index", "-", "--collection", "faq", "--encoder", "hash", "--json", *fields) as indexing:
        assert json.loads(indexing.communicate(given, timeout=60)[0])["inserted"] == 1
    assert indexing.returncode == 0
    (hit,) = printed(run("search", "faq", "because", "--json"))["hits"]
    assert (hit["external_id"], hit["title"], hit["snippet"]) == ("1", "why?", "because")
    assert hit["metadata"] == {"lang": "en"}


def test_encoders(run: Run) -> None:
    listed = {info["name"]: info for info in printed(run("encoders", "--json"))}
    assert listed["minilm"]["dimensions"] == 384
    assert "ready offline" in run("encoders").stdout


def test_every_option_names_its_variable() -> None:
    def walk(command: Any, path: tuple[str, ...]) -> None:
        assert command.help, path
        if isinstance(command, Group):
            for name in command.list_commands(Context(command)):
                walk(command.commands[name], (*path, name))
        else:
            text = CliRunner(env={"COLUMNS": "120"}).invoke(main, [*path, "--help"]).output
            options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
            assert all(f"--{p.opts[0].removeprefix('--')}" in text for p in options)
            assert text.count("PGNEURAL_") >= len(options), path

    walk(main, ())


# what only a process has


def until_it_says(connection: psycopg.Connection[Any], statement: str) -> None:
    """Wait until a program of ours has executed a statement in the database that begins so; autovacuum is none."""
    others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgneural'"
    asked = f"{others} AND query LIKE %s"
    until(lambda: connection.execute(asked.encode(), [f"{statement}%"]).fetchone() is not None, 60)


def test_a_process_fails_with_a_line_and_a_status(process: Process) -> None:
    with process("search", "nothing", "x") as failing:
        said = ("", "Error: no collection 'nothing'; the database has: none yet\n")
        assert failing.communicate(timeout=60) == said
    assert failing.returncode == 1
    with process("--debug", "search", "nothing", "x") as debugged:
        assert "Traceback" in debugged.communicate(timeout=60)[1]
    assert debugged.returncode == 1


def test_a_process_that_is_interrupted_says_how_to_go_on(process: Process, url: str) -> None:
    with (
        process("index", "-", "--collection", "piped", "--encoder", "hash") as waiting,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        assert waiting.stdin
        assert waiting.stderr
        waiting.stdin.write('{"_id": "1", "text": "a fox"}\n')
        waiting.stdin.flush()  # and no end
        until_it_says(connection, "")
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) == INTERRUPTED
        assert waiting.stderr.read() == "Error: stopped; run the same command again to complete the work\n"


def test_what_the_driver_ignores_is_not_printed() -> None:
    program = (
        "import logging; from pgneural.cli import main; main(['encoders', '--json'], standalone_mode=False);"
        "logging.getLogger('psycopg').warning('error ignored in rollback')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stderr == ""


def test_a_worker_that_is_told_to_stop_ends_well(process: Process, url: str) -> None:
    with process("worker", "--as-superuser") as working, psycopg.connect(url, autocommit=True) as connection:
        until_it_says(connection, "LISTEN")
        working.send_signal(signal.SIGTERM)
        said, _ = working.communicate(timeout=60)
    assert (working.returncode, said) == (0, "0 rows are up to date: 0 chunks encoded, 0 known already\n")


def test_a_process_whose_output_nobody_reads_ends_quietly(process: Process) -> None:
    with process("encoders") as printing:
        assert printing.stdout
        assert printing.stderr
        printing.stdout.close()
        assert printing.wait(60) == 1
        assert printing.stderr.read() == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several kinds, one of them with two pages."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text(
        "# Foxes\n\nA line.\n\n" + "Foxes sleep by day.\n" * 300 + "\n\nBread is hot."
    )
    (tmp_path / "notes" / "two.pdf").write_bytes(pdf("Foxes run at night.", "Bridges carry load."))
    (tmp_path / "old.py").write_text("def fox():\n    return 'bridge'\n")
    os.utime(tmp_path / "old.py", (10**9, 10**9))  # 2001-09-09
    return tmp_path


def test_hits_say_where_they_stand_and_files_are_filters(run: Run, folder: Path) -> None:
    report = printed(run("index", folder, "--collection", "mixed", "--encoder", "hash", "--json"))
    assert (report["inserted"], report["rejected"]) == (3, 0)

    def places(*arguments: str) -> list[Any]:
        hits = printed(run("search", "mixed", *arguments, "--json"))["hits"]
        return [hit["place"] for hit in hits]

    (bridges, *_) = places("bridges carry load", "--type", "pdf")
    assert bridges == {"path": str(folder / "notes" / "two.pdf"), "page": 2}
    (bread, *_) = places("bread is hot", "--path", "notes/*.md")
    assert bread["path"] == str(folder / "notes" / "a.md")
    assert 100 < bread["line"] <= 307
    assert {Path(place["path"]).name for place in places("fox", "--since", "2002")} == {"a.md", "two.pdf"}
    assert {Path(place["path"]).name for place in places("fox", "--type", "PDF", "--type", ".py")} == {
        "old.py",
        "two.pdf",
    }
    assert places("fox", "--type", "py", "--where", "length(content) > 100 OR false -- long") == []
    assert "notes/two.pdf, page 2" in run("search", "mixed", "bridges", "--type", "pdf", env={"COLUMNS": "300"}).stdout
    refused = run("search", "mixed", "fox", "--since", "May")
    assert (refused.returncode, "'May' is no date; write 2026" in refused.stderr) == (2, True)


def test_what_is_stored_is_listed_shown_and_exported(run: Run, folder: Path, tmp_path: Path) -> None:
    run("index", folder, "--collection", "mixed", "--encoder", "hash")
    listed = printed(run("list", "mixed", "--path", "notes/**", "--json"))
    assert [Path(each["id"]).name for each in listed] == ["a.md", "two.pdf"]
    assert len(printed(run("list", "mixed", "--limit", "1", "--json"))) == 1
    assert "two.pdf" in run("list", "mixed").stdout
    shown = run("show", "mixed", folder / "notes" / "two.pdf").stdout
    assert all(part in shown for part in ("Two pages\n", "pages: 2\n", "Bridges carry load."))
    missing = run("show", "mixed", "nothing")
    assert (missing.returncode, missing.stderr) == (
        1,
        "Error: collection 'mixed' has no document 'nothing'; see its documents()\n",
    )
    exported = tmp_path / "exported.jsonl"
    exported.write_text(run("export", "mixed").stdout)
    run("index", exported, "--collection", "copy", "--encoder", "hash")
    assert printed(run("list", "copy", "--json")) == printed(run("list", "mixed", "--json"))


def test_what_is_ignored_by_now_is_pruned_and_odd_values_stop_no_search(run: Run, folder: Path) -> None:
    arguments = ("index", folder, "--collection", "mixed", "--encoder", "hash", "--json")
    assert printed(run(*arguments))["inserted"] == 3
    (folder / ".gitignore").write_text("*.py\n")
    assert printed(run(*arguments, "--prune", "--exclude", "*.pdf"))["pruned"] == 1  # what is excluded stays
    assert len(printed(run("list", "mixed", "--json"))) == 2
    bad = "true) OR (true"
    refused = run("delete", "mixed", "--where", bad, "--type", "py")
    assert (refused.returncode, len(printed(run("list", "mixed", "--json")))) == (1, 2)
    named = ("--where", "title = :pgneural_type_0", "--param", "pgneural_type_0=Foxes", "--type", "md")
    assert [each["title"] for each in printed(run("list", "mixed", *named, "--json"))] == ["Foxes"]
    assert [len(printed(run("list", "mixed", "--path", path, "--json"))) for path in ("./notes", "notes/", "no")] == [
        2,
        2,
        0,
    ]
    odd = json.dumps({"id": "1", "text": "foxes", "uri": "file://[x"})
    run("index", "-", "--collection", "odd", "--encoder", "hash", input=odd)
    assert printed(run("search", "odd", "foxes", "--json"))["hits"][0]["place"] is None
