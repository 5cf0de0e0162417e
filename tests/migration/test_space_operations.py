"""A model that is changed by the operations of migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column

from pgneural import Searchable
from pgneural.store.engine import libpq_url
from pgneural.worker import Worker
from tests.application.project import Application


def notes(**options: Any) -> sa.MetaData:
    class Base(DeclarativeBase):
        pass

    columns = {"id": mapped_column(sa.Integer, primary_key=True), "text": mapped_column(sa.Text)}
    type(
        "Note", (Base,), {"__tablename__": "notes", **columns, "search": Searchable("text", encoder="hash", **options)}
    )
    return Base.metadata


def test_a_model_is_changed_by_operations(tmp_path: Path, url: str) -> None:
    """Create, switch, drop; autogenerate leaves the search alone meanwhile, and finds nothing to do after."""
    project = Application(tmp_path / "project", url, history=False)
    (project.folder / "versions").mkdir(exist_ok=True)
    project.autogenerate(notes(), "one")
    project.upgrade()
    with project.engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO notes (id, text) SELECT n, 'fox ' || n FROM generate_series(1, 9) n"))
    Worker(libpq_url(url), as_superuser=True).run(once=True)
    steps = {
        "two": 'op.create_space("notes", "search", "small", options={"dimensions": 32}, dimensions=32)',
        "three": 'op.switch_space("notes", "search", "small")',
        "four": 'op.rollback_space("notes", "search")\n    op.switch_space("notes", "search", "small", force=True)',
        "five": 'op.drop_space("notes", "search", "main")',
    }
    for name, step in steps.items():
        project.write(name, step)
        project.upgrade()
        Worker(libpq_url(url), as_superuser=True).run(once=True)
        if name != "five":
            project.assert_no_changes(notes())  # several spaces: left alone
            project.assert_no_changes(notes(dimensions=32))
    project.assert_no_changes(notes(dimensions=32))
    project.write("six", 'op.add_vectors("notes", "search", "sparse", encoder="/srv/splade", dimensions=30522)')
    project.upgrade()
    project.assert_no_changes(notes(dimensions=32))
    project.write("seven", 'op.drop_vectors("notes", "search", "sparse")')
    script = project.script("seven")
    assert (
        "SELECT neural.add_vectors('\"notes\"'::regclass, 'search', kind => 'sparse', encoder => '/srv/splade'"
        in script
    )
    assert "SELECT neural.create_space('\"notes\"'::regclass, 'search', name => 'small'" in script
    project.engine.dispose()
