"""A disk that is really full: a small one is mounted for the chunks, and something else takes its space."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgneural.encoders.hashing import HashEncoder
from pgneural.worker import Worker
from tests.fixtures.tables import Execute, until


@pytest.fixture
def small_disk(data_dir: Path, url: str) -> Iterator[Path]:
    """A file system of 16 MB, with a folder in it that the server may write to."""
    cluster = data_dir / "postgres"
    if not cluster.exists() or os.geteuid() != 0:
        pytest.skip("no disk can be mounted: that takes root, and a server of our own")
    folder = Path(tempfile.mkdtemp(prefix="pgneural-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no disk can be mounted: {mounted.stderr.strip()}")
    tables = folder / "tables"
    tables.mkdir()
    os.chown(tables, cluster.stat().st_uid, cluster.stat().st_gid)
    folder.chmod(0o755)
    yield tables
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as taking, pytest.raises(OSError, match="No space left on device"):
        while True:
            taking.write(bytes(65536))


def test_workers_wait_for_space_and_lose_nothing(
    small_disk: Path, notes: Execute, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"small_{os.getpid()}"
    notes(f"CREATE TABLESPACE {place} LOCATION '{small_disk}'")
    notes(f"ALTER TABLE notes_search SET TABLESPACE {place}")
    fill(small_disk.parent / "taken")
    worker = Worker(url, as_superuser=True, make=lambda *_, **__: HashEncoder())
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: "No space left on device" in caplog.text, 90)
        assert notes("SELECT count(*) FROM notes_search") == [(0,)]
        assert notes("SELECT max(attempts) FROM neural.pending") == [(0,)]  # no row is to blame
        (small_disk.parent / "taken").unlink()
        until(lambda: notes("SELECT count(*) FROM notes_search") == [(20,)], 90)
    finally:
        worker.stop()
        thread.join()
        notes("ALTER TABLE notes_search SET TABLESPACE pg_default")
        notes(f"DROP TABLESPACE {place}")
