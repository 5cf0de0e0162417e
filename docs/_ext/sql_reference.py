"""The reference of SQL, made of what `COMMENT ON` says: read from the text of ``sql/``, so that no server is needed.

The tables are those of `pgneural.store.schema`, whose comments migrations bring to the database. A directive of Sphinx,
``sql-objects``, lists the functions, views and tables that it names, or with ``:others:`` all that no other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pgneural.store.schema import Catalog

SQL = Path(__file__).parents[2] / "sql"

FUNCTION = re.compile(
    r"^CREATE OR REPLACE FUNCTION neural\.(\w+)\((.*?)\)\s*?(?:\s+RETURNS (.*?))?\s+(?=LANGUAGE\b)",
    re.MULTILINE | re.DOTALL,
)
COMMENT = re.compile(
    r"^COMMENT ON (FUNCTION|VIEW) neural\.(\w+)(?:\((.*?)\))?\s+IS\s+'((?:[^']|'')*)';", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class SqlObject:
    """A function, a view or a table.

    Attributes:
        kind: function, view, or table.
        name: Without the schema.
        signature: Arguments and result of a function; the columns of a table.
        comment: What it is for.
        file: Where it is made.
    """

    kind: str
    name: str
    signature: str
    comment: str
    file: str

    def markdown(self) -> str:
        """Return an item of a definition list."""
        said = self.comment[0].upper() + self.comment[1:].rstrip(".")
        return f"`neural.{self.name}{self.signature}`\n: {self.kind.capitalize()}. {escaped(said)}.\n"


def escaped(text: str) -> str:
    """Return a text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", text)


def objects() -> list[SqlObject]:
    """Return the functions and views in the order of the files, then the tables.

    Raises:
        ValueError: A function has no comment.
    """
    found: list[SqlObject] = []
    for path in sorted(SQL.glob("*.sql")):
        found += _of_file(path)
    return [*found, *_tables()]


def _of_file(path: Path) -> Iterator[SqlObject]:
    text = path.read_text(encoding="utf-8")
    comments = [
        (kind.lower(), name, arguments, words(comment)) for kind, name, arguments, comment in COMMENT.findall(text)
    ]
    made = list(FUNCTION.finditer(text))
    if len(made) != len(re.findall(r"^CREATE OR REPLACE FUNCTION", text, re.MULTILINE)):
        raise ValueError(f"{path.name}: a function is written in another way than the others; see FUNCTION")
    for function in made:
        said = [c for kind, name, _, c in comments if (kind, name) == ("function", function[1])]
        if not said:
            raise ValueError(f"{path.name}: neural.{function[1]} has no comment")
        same = [each[1] for each in made if each[1] == function[1] and each.start() <= function.start()]
        result = f" → {words(function[3])}" if function[3] else ""
        signature = f"({words(function[2])}){result}"
        yield SqlObject("function", function[1], signature, said[min(len(same), len(said)) - 1], path.name)
    for kind, name, _, comment in comments:
        if kind == "view":
            yield SqlObject(kind, name, "", comment, path.name)


def _tables() -> Iterator[SqlObject]:
    for table in Catalog.metadata.sorted_tables:
        if table.schema == "neural":
            columns = ", ".join(column.name for column in table.columns)
            yield SqlObject("table", table.name, f"({columns})", words(table.comment or ""), "schema")


def words(text: str) -> str:
    """Return a text of SQL on one line, without comments."""
    return " ".join(re.sub(r"--.*", "", text).replace("''", "'").split())


class SqlObjects(SphinxDirective):
    """A list of functions, views and tables: those that are named, or all others."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"others": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return the list."""
        known = objects()
        for path in sorted(SQL.glob("*.sql")):
            self.env.note_dependency(str(path))
        wanted = " ".join(self.content).split()
        if unknown := set(wanted) - {each.name for each in known}:
            raise self.error(f"there is no neural.{min(unknown)}")
        chosen = [each for name in wanted for each in known if each.name == name]
        if "others" in self.options:
            elsewhere = set(re.findall(r"\w+", " ".join(self._named_elsewhere())))
            chosen = sorted((each for each in known if each.name not in elsewhere), key=lambda each: each.name)
        text = "\n".join(each.markdown() for each in chosen)
        parent = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), source="COMMENT ON"), self.content_offset, parent)
        return list(parent.children)

    def _named_elsewhere(self) -> list[str]:
        page = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        return re.findall(r"^```\{sql-objects\}\n([^:].*?)^```", page, re.MULTILINE | re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Join the directive to Sphinx."""
    app.add_directive("sql-objects", SqlObjects)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
