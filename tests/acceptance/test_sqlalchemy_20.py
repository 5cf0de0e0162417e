"""The same application on SQLAlchemy 2.0: the tests of mapped classes and of migrations once more, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = Path(sys.prefix) / "sqlalchemy-2.0"


@pytest.mark.skipif(not OLD.is_dir(), reason="SQLAlchemy 2.0 is not beside the environment; run: make setup")
def test_on_sqlalchemy_20(server_url: str) -> None:
    tests = [
        "tests/integration/test_orm.py",
        "tests/integration/test_orm_mapping.py",
        "tests/acceptance/test_application.py",
        "tests/migration/test_alembic_plugin.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(OLD), "PGNEURAL_TEST_URL": server_url}
    version = [sys.executable, "-c", "import sqlalchemy; print(sqlalchemy.__version__)"]
    said = subprocess.run(version, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.startswith("2.0.")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "skipped" not in done.stdout
