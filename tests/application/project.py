"""An Alembic project in a folder of its own, and its database."""

from __future__ import annotations

import difflib
import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from pgneural.store.engine import libpq_url
from pgneural.store.schema import Space

HERE = Path(__file__).parent


class Application:
    """The application's code in a folder of its own, and its database."""

    def __init__(self, folder: Path, url: str, *, history: bool = True) -> None:
        self.folder, self.url = folder, url
        ignored = ["__pycache__", "models.py", "project.py", "__init__.py", *([] if history else ["a*.py"])]
        shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns(*ignored))
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: connect(url))
        self.output = io.StringIO()
        self.connected: dict[str, Any] = {}

    def config(self, metadata: sa.MetaData | None = None, **options: Any) -> Config:
        self.output = io.StringIO()
        config = Config(stdout=self.output, output_buffer=self.output)
        config.set_main_option("script_location", str(self.folder))
        config.attributes |= {"engine": self.engine, "metadata": metadata, "options": options}
        return config

    def autogenerate(self, metadata: sa.MetaData, name: str, **options: Any) -> str:
        command.revision(self.config(metadata, **options), name, autogenerate=True, rev_id=name)
        (path,) = self.folder.glob(f"versions/{name}_*.py")
        return path.read_text()

    def write(self, name: str, code: str) -> None:
        """Write a revision by hand."""
        command.revision(self.config(), name, rev_id=name)
        self.rewrite(name, {r"(def upgrade\(\)[^\n]*\n    )pass": rf"\1{code}"})
        (path,) = self.folder.glob(f"versions/{name}_*.py")
        path.write_text(
            path.read_text().replace("import sqlalchemy", "import pgneural.migrate.operations\nimport sqlalchemy")
        )

    def script(self, revision: str) -> str:
        """Return what an upgrade from nothing would execute."""
        command.upgrade(self.config(), revision, sql=True)
        return self.output.getvalue()

    def rewrite(self, name: str, changes: dict[str, str]) -> None:
        (path,) = self.folder.glob(f"versions/{name}_*.py")
        text = path.read_text()
        for pattern, replacement in changes.items():
            text, found = re.subn(pattern, replacement, text, flags=re.DOTALL)
            assert found, pattern
        path.write_text(text)

    def upgrade(self, revision: str = "head") -> None:
        command.upgrade(self.config(), revision)

    def downgrade(self, revision: str) -> None:
        command.downgrade(self.config(), revision)

    def assert_no_changes(self, metadata: sa.MetaData, **options: Any) -> None:
        """Make sure that a second autogenerate is empty."""
        usual = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name in (None, "shop"),
            "autogenerate_plugins": ["alembic.autogenerate.*", "pgneural.migrate"],
        }
        with self.engine.connect().execution_options(**self.connected) as connection:
            context = MigrationContext.configure(connection, opts={**usual, **options})
            found = produce_migrations(context, metadata).upgrade_ops
        assert found is not None
        said = " ".join(str(vars(operation)) for operation in found.ops)
        assert said == "", said

    def dump(self, pg_dump: str) -> str:
        command = [pg_dump, "--schema-only", "--dbname", libpq_url(self.url)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        text = re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)
        return re.sub(r"(note_changes\(.*)'\{[\d,]*\}'", r"\1…", text)  # the ids of spaces

    def spaces(self) -> list[Any]:
        columns = [
            column for column in Space.__table__.c if column.name not in ("id", "created_at", "mean_length", "revision")
        ]
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(*columns).order_by("source")))


def differences(left: str, right: str) -> list[str]:
    return list(difflib.unified_diff(left.splitlines(), right.splitlines(), lineterm="", n=0))


def connect(url: str) -> Any:
    return psycopg.connect(libpq_url(url))
