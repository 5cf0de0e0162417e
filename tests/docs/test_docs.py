"""Documents that are run: every block of the README and of docs/, as a new user would, with what it prints."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from queue import Queue

import click
import psycopg
import pytest

import pgneural
from pgneural import Database
from pgneural.cli import main
from tests.docs.pages import REAL, ROOT, RUNNERS, Block, Homes, agrees, blocks, languages, pages, tidy

sys.path.insert(0, str(ROOT / "docs" / "_ext"))
import sql_reference

RUN = [page for page in pages() if blocks(page)]

SHOWN = {
    "README.md": ("Vaccines | A vaccine shows the body", "Bread", "3 rows are up to date"),
    "docs/howto/files.md": ("How long does bread keep?", "lines: 1 document", "1 document was removed"),
    "docs/quickstart/files.md": ("Vaccines A vaccine shows the body", "How long does bread keep?"),
    "docs/quickstart/application.md": ("1 row to be", "Ada"),
    "docs/howto/database.md": ("schema neural is as it should be",),
    "docs/howto/model.md": ("small  serving",),
}
"""What some pages have to show, whatever else is on them."""


@pytest.fixture(scope="module")
def free() -> Iterator[Queue[Homes]]:
    """Homes for two pages at a time: there are two cores."""
    both, homes = (Homes(), Homes()), Queue[Homes]()
    with ThreadPoolExecutor(2) as threads:
        try:
            for entered in threads.map(Homes.__enter__, both):
                homes.put(entered)
            yield homes
        finally:
            list(threads.map(Homes.__exit__, both))


@pytest.fixture(scope="module")
def followed(
    free: Queue[Homes], request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[list[tuple[Block, str]]]]]:
    """The blocks of each page that is tested, with what they said."""

    def follow(page: str) -> list[tuple[Block, str]]:
        homes = free.get()
        try:
            return list(homes.new(page).follow(page))
        finally:
            free.put(homes)

    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    tested = {each["page"] for each in parameters if "page" in each}
    with ThreadPoolExecutor(2) as threads:
        yield {page: threads.submit(follow, page) for page in RUN if page in tested}
        threads.shutdown(cancel_futures=True)


def test_a_block_that_fails_is_noticed(free: Queue[Homes]) -> None:
    homes = free.get()
    home = homes.new("README.md")
    failing = home.run("python", "print(1 / 0)")
    assert (failing.returncode, "ZeroDivisionError" in failing.stdout) == (1, True)
    assert home.run("sh", "pgneural no-such-command | cat").returncode == 2
    free.put(homes)


@pytest.mark.model
@pytest.mark.parametrize("page", RUN)
def test_blocks_run_in_order_and_print_what_the_page_shows(
    followed: dict[str, Future[list[tuple[Block, str]]]], page: str
) -> None:
    everything = ""
    for block, said in followed[page].result():
        everything += said
        if block.hidden:
            continue
        if block.output is None:
            assert not tidy(said), f"{page} does not show what this prints; {RECORD} {page}\n{block.code}\n{said}"
        else:
            assert agrees(said, block.output), f"{page} shows another output; {RECORD} {page}\n{block.code}\n{said}"
    assert all(expected in everything for expected in SHOWN.get(page, ())), everything


RECORD = "run: python -m tests.docs.pages"


def test_every_kind_of_block_is_run_and_the_real_programs_are_started() -> None:
    run = [block for page in RUN for block in blocks(page) if not block.file]
    assert {block.language for block in run} == set(RUNNERS)
    assert {block.language for block in blocks("README.md")} == set(RUNNERS)
    assert {text: sum(text in block.code for block in run) for text in REAL} == dict.fromkeys(REAL, 1)
    assert set(SHOWN) <= set(RUN)


def test_fences_are_of_known_kinds() -> None:
    """So that no block is left out by a spelling, as ``bash`` or ``py`` would be."""
    known = {*RUNNERS, "diff", "text", "console"}
    for page in pages():
        strange = {language for language in languages(page) - known if not language.startswith("{")}
        assert not strange, page


def test_an_ellipsis_stands_for_what_varies() -> None:
    assert agrees("\n 1 row in 0.3 s  \n\n", "1 row in … s".rjust(13))
    assert agrees("a\nb\nc\nd\n", "a\n…\nd")
    assert agrees("a\nd\n", "a\n…\nd")
    assert agrees("name    ms\nx    10.01", "name  ms\nx  …")
    assert not agrees("a\nb\n", "a")
    assert not agrees("a  b", "a b")
    assert not agrees("1 row in 0.3 s", "2 rows in … s")
    assert not agrees("", "…\na")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_page_is_reached_from_the_first() -> None:
    reached, waiting = set(), ["docs/index.md"]
    while waiting:
        page = Path(waiting.pop())
        reached.add(page.as_posix())
        text = (ROOT / page).read_text()
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            waiting += [(page.parent / f"{name}.md").as_posix() for name in re.findall(r"^[\w/]+$", tree, re.MULTILINE)]
    assert sorted(reached) == sorted(page for page in pages() if page != "README.md")


def test_links_lead_to_files() -> None:
    for page in [*pages(), "sql/README.md"]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / link).is_file(), (page, link)


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
"""What statements of the reference answer first in a database with a few rows; the others answer something."""

SQL_REFERENCE = "docs/reference/sql.md"


def test_statements_of_the_sql_reference_answer_what_they_say(url: str) -> None:
    with Database(url) as database:
        foxes = database.collection("foxes", encoder="hash")
        foxes.index([{"id": "1", "text": "quick foxes"}, {"id": "2", "text": "a lazy dog"}])
    answered: dict[str, tuple[object, ...]] = {}
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO neural.failed SELECT id, '{\"id\": 1}', 'too odd', 5, now() FROM neural.spaces")
        for block in blocks(SQL_REFERENCE):
            if block.language != "sql":
                continue
            for statement in filter(str.strip, block.code.split(";")):
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
    with psycopg.connect(url) as connection:
        objects = connection.execute(
            "SELECT proname, obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'neural'::regnamespace "
            "UNION ALL SELECT relname, obj_description(oid, 'pg_class') FROM pg_class "
            "WHERE relnamespace = 'neural'::regnamespace AND relkind IN ('v', 'r') AND relname <> 'alembic_version'"
        ).fetchall()
    assert all(comment for _, comment in objects), objects
    listed = sql_reference.objects()
    assert {each.name for each in listed} >= {"score", "row_count", "collections"}
    comments = sorted((name, " ".join(comment.split())) for name, comment in objects)
    assert sorted((each.name, each.comment) for each in listed) == comments
    page = (ROOT / SQL_REFERENCE).read_text()
    assert "```{sql-objects}\n:others:\n```" in page  # so that each is on the page


def test_arguments_of_functions_are_those_of_the_server(url: str) -> None:
    with psycopg.connect(url) as connection:
        arguments = connection.execute(
            "SELECT proname, coalesce(proargnames, '{}') FROM pg_proc WHERE pronamespace = 'neural'::regnamespace"
        ).fetchall()
    signatures = {each.name: each.signature for each in sql_reference.objects()}
    for function, names in arguments:
        assert all(name in signatures[function] for name in names), (function, names)


def commands(group: click.Group, path: str = "pgneural") -> Iterator[str]:
    """Return every command and subcommand as it is called."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_every_command_is_shown() -> None:
    text = "".join((ROOT / page).read_text() for page in pages())
    for command in commands(main):
        assert command in text, command
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert "pgneural.cli:main" in reference
    assert ":nested: full" in reference


def test_every_public_name_is_in_the_reference_of_python() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text()
    for name in pgneural.__all__:
        assert f"pgneural.{name}\n" in text, name
