"""The same application on SQLAlchemy 2.0: what may differ there is tested once more, in a process of its own.

That is what has the mark ``sqlalchemy20``: how statements compose and are kept, sessions of every kind, mappings, and what
Alembic reads and renders. `make test-sqlalchemy-20` runs all tests of mapped classes and migrations there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = Path(sys.prefix) / "sqlalchemy-2.0"


@pytest.mark.skipif(not OLD.is_dir(), reason="SQLAlchemy 2.0 is not beside the environment; run: make setup")
def test_on_sqlalchemy_20(server_url: str) -> None:
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    path = os.pathsep.join([str(OLD), *given])
    environment = {**os.environ, "PYTHONPATH": path, "PGNEURAL_TEST_URL": server_url}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "sqlalchemy20", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "skipped" not in done.stdout
    (passed,) = re.findall(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert int(passed) >= 15


@pytest.mark.sqlalchemy20
def test_it_is_the_version_that_is_asked_for() -> None:
    import sqlalchemy

    assert sqlalchemy.__version__.startswith("2.0." if str(OLD) in sys.path else "2.1.")
