"""Pages that are run: the blocks of a page, in order, in a home of its own, as a new user would.

A block is a fence of ``python``, ``sh``, ``sql`` or ``diff``. One that names a file is written there; any other is run.
A fence of ``text`` directly after a block that is run is its output, of both standard output and standard error:

- ``…`` stands for any text within a line; a line with nothing else stands for any number of lines. Several blanks are
  as good as one in an output that has it, since columns are as wide as what varies;
- the folder of the home is written ``/home/ada``;
- blanks at the end of a line, and blank lines around the output, do not count.

A block that prints something is followed by its output, except one that is hidden in an HTML comment: it prepares what
the page needs. ``console`` is for commands that are not run (they need a network), and any other ``text`` is a picture.

``python -m tests.docs.pages PAGE…`` runs pages and writes the outputs that differ into them.
"""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from pgneural import Database
from pgneural.store.embedded import EmbeddedServer
from tests.docs.forking import ForkingServer
from tests.fixtures.postgres import folder_for_servers, throw_away

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(```+)([^\s`]*)(?: (\S+))?\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
VARYING = re.compile(r"\d+\.\d(?= s\b)|(?<=versions/)[0-9a-f]{12}(?=_)|(?<=\d\.\d\d)\d{5,}")
HOME_SHOWN = "/home/ada"

RUNNERS = {
    "python": ["python", "-W", "error", "-"],
    "sh": ["bash", "-eu", "-o", "pipefail"],
    "sql": ["pgneural", "db", "psql", "--set", "ON_ERROR_STOP=1"],
}

REAL = ("alembic init", "pgneural db status", 'encoder="hash", language="simple"')
"""What is in blocks whose programs are started as a user's are; the others are forked from a process that is ready."""


FRESH = ("README.md", "docs/quickstart/application.md")
"""Pages whose homes are empty and have no server, as those of new users."""

TORCH = re.compile(r"\"models/|fixtures import models")
"""What is in blocks that load models with torch: their programs are forked from a process that has it."""


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        language: That of its fence.
        file: Where it is written; empty for one that is run.
        code: Its text.
        output: What the page says that it prints; None where the page says nothing.
        hidden: Whether it lies in a comment.
        span: Where in the page its output is, or would be.
    """

    language: str
    file: str
    code: str
    output: str | None
    hidden: bool
    span: tuple[int, int]


def pages() -> list[str]:
    """Return the README and all pages of the documentation, by their paths."""
    found = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("**/*.md"))]
    return ["README.md", *(page for page in found if not page.startswith("docs/_"))]


def languages(page: str) -> set[str]:
    """Return the languages of all fences of a page."""
    return {fence[2] for fence in FENCE.finditer((ROOT / page).read_text(encoding="utf-8"))}


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page that are run or written."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    found = []
    for fence, following in itertools.zip_longest(fences, fences[1:]):
        if fence[2] not in {*RUNNERS, "diff"}:
            continue
        output, span = None, (fence.end(), fence.end())
        if following and following[2] == "text" and not text[fence.end() : following.start()].strip():
            output, span = following[4], following.span()
        hidden = text.rfind("<!--", 0, fence.start()) > text.rfind("-->", 0, fence.start())
        found.append(Block(fence[2], fence[3] or "", fence[4], output, hidden, span))
    return found


def agrees(said: str, output: str) -> bool:
    """Whether a block printed what its page says."""
    if "…" not in output:
        return tidy(said) == tidy(output)
    pattern = "".join("(?:.*\n)*" if line.strip() == "…" else f"{_pattern(line)}\n" for line in tidy(output))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in tidy(said))) is not None


def _pattern(line: str) -> str:
    return " *" + " +".join(re.escape(word).replace("…", ".*") for word in line.split())


def tidy(said: str) -> list[str]:
    """Return the lines of an output without what does not count."""
    return "\n".join(line.rstrip() for line in said.splitlines()).strip("\n").splitlines()


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


class Home:
    """A new user's home folder, and the programs that run there."""

    def __init__(self, folder: Path, programs: Callable[[str], Path]) -> None:
        self.folder, self._programs = folder, programs
        self._environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("PGNEURAL_", "XDG_", "COLUMNS"))
        } | {
            "HOME": str(folder),
            "CHECKOUT": str(ROOT),  # for hidden blocks that take something from the tests
            "DATABASE_URL": f"postgresql+psycopg://postgres@/postgres?host={folder}/.local/share/pgneural/postgres",
        }

    def run(self, language: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run a block; standard error goes where standard output goes, as on a screen."""
        programs = f"{self._programs(code)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["/usr/bin/env", *RUNNERS[language]],
            input=code,
            cwd=self.folder,
            env=self._environment | {"PATH": programs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )

    def follow(self, page: str) -> Iterator[tuple[Block, str]]:
        """Write and run the blocks of a page; give each that was run with what it said."""
        for block in blocks(page):
            if block.file:
                write(self.folder / block.file, block.language, block.code)
                continue
            result = self.run(block.language, block.code)
            assert result.returncode == 0, f"{page}:\n{block.code}\n{result.stdout}"
            yield block, result.stdout.replace(str(self.folder), HOME_SHOWN)


UPGRADING = threading.Lock()
"""Alembic migrates one database at a time in a process."""


class Homes:
    """New homes for one page after the other, as a context; at its end all servers that were started there are gone.

    Pages that are `FRESH` begin with nothing. The others have one home, which is emptied for each, and its server a new
    database with our schema: to start a server for each would take longer than to run the page.
    """

    def __init__(self) -> None:
        self._programs = ExitStack()
        self._folder = folder_for_servers()
        self._home = self._folder / "home"
        self._server = EmbeddedServer(data_of(self._home))
        self._fresh: list[Path] = []

    def __enter__(self) -> Homes:
        self._folder.chmod(0o755)
        self._ready = self._programs.enter_context(ForkingServer())
        with Database(self._server.start()) as database, UPGRADING:
            database.upgrade()
        with self._administered() as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE pristine TEMPLATE postgres")
        return self

    def __exit__(self, *_: object) -> None:
        with ThreadPoolExecutor(4) as at_once:  # the end of a server takes a second or two
            list(at_once.map(throw_away, [self._server, *(EmbeddedServer(data_of(each)) for each in self._fresh)]))
        self._programs.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new(self, page: str) -> Home:
        """Make a home for a page; the one before is done with."""
        if page in FRESH:
            self._fresh.append(Path(tempfile.mkdtemp(dir=self._folder)))
            self._fresh[-1].chmod(0o755)
            return Home(self._fresh[-1], self._programs_for)
        for left in self._home.iterdir():
            if left.name != ".local":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        with self._administered() as connection:
            connection.execute("DROP DATABASE postgres WITH (FORCE)")
            made = "SELECT rolname FROM pg_roles WHERE NOT rolsuper AND NOT starts_with(rolname, 'pg_')"
            for (role,) in connection.execute(made).fetchall():
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
            connection.execute("CREATE DATABASE postgres TEMPLATE pristine")
        return Home(self._home, self._programs_for)

    def _administered(self) -> psycopg.Connection:
        url = self._server.start()  # a page may have stopped it
        return psycopg.connect(url.replace("/postgres?", "/template1?"), autocommit=True)

    def _programs_for(self, code: str) -> Path:
        """Return the folder of the programs that run a block."""
        if any(text in code for text in REAL):
            return Path(sys.executable).parent
        return self._torch.folder if TORCH.search(code) else self._ready.folder

    @functools.cached_property
    def _torch(self) -> ForkingServer:
        return self._programs.enter_context(ForkingServer("sentence_transformers"))


def data_of(home: Path) -> Path:
    """Return the folder where the embedded server of a home keeps its data."""
    return home / ".local" / "share" / "pgneural"


def record(page: str, homes: Homes) -> None:
    """Write the outputs that differ into a page."""
    outputs: list[tuple[tuple[int, int], str]] = []
    try:
        for block, said in homes.new(page).follow(page):
            shown = VARYING.sub("…", "\n".join(tidy(said)))
            if not block.hidden and shown and not agrees(said, block.output or ""):
                outputs.append((block.span, f"```text\n{shown}\n```"))
    finally:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        for (start, end), output in reversed(outputs):
            text = text[:start] + ("\n\n" if start == end else "") + output + text[end:]
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with Homes() as homes:
        for each in sys.argv[1:]:
            record(each, homes)
