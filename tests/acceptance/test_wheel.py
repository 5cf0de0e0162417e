"""The built wheel, away from the source tree: migrations and SQL files travel inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wheel_upgrades_a_database(tmp_path: Path, empty_url: str) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PGNEURAL_DATABASE_URL": empty_url}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    assert run("import pgneural; print(pgneural.__file__)").startswith(str(tmp_path / "site"))
    upgrade = "from pgneural.cli import main; main(['db', 'upgrade'])"
    assert run(upgrade) == "schema neural is at revision 0006\n"
    assert run(upgrade.replace("upgrade", "check")) == "schema neural is as it should be\n"
    assert "Usage:" in run("from pgneural.cli import main; main(['--help'])")
