"""A project with migrations of its own, in a folder and a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.application.project import Application


@pytest.fixture
def project(tmp_path: Path, url: str) -> Iterator[Application]:
    made = Application(tmp_path / "project", url, history=False)
    (made.folder / "versions").mkdir(exist_ok=True)
    yield made
    made.engine.dispose()
