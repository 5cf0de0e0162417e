"""The embedded server: shared by processes at once, and not hurt by a kill."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from pgneural.store.embedded import EmbeddedServer
from tests.fixtures.postgres import throw_away

START = "import sys; from pathlib import Path; from pgneural.store.embedded import EmbeddedServer as E; print(E(Path(sys.argv[1])).start())"


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server whose folder is still empty."""
    made = EmbeddedServer(Path(tempfile.mkdtemp(prefix="pgneural empty & 100% '-")))
    yield made
    throw_away(made)


@pytest.fixture(scope="module")
def stopped() -> Iterator[EmbeddedServer]:
    """A server that was made, started and stopped, to be copied."""
    made = EmbeddedServer(Path(tempfile.mkdtemp(prefix="pgneural-stopped-")))
    made.start()
    made.stop()
    yield made
    throw_away(made)


@pytest.fixture
def ready(stopped: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A copy of it, which need not be initialised."""
    made = EmbeddedServer(Path(tempfile.mkdtemp(prefix="pgneural ready & 100% '-")))
    subprocess.run(["cp", "-a", stopped.cluster, made.cluster], check=True)  # with its owner
    yield made
    throw_away(made)


def works(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def test_many_processes_start_one_server(server: EmbeddedServer) -> None:
    command = [sys.executable, "-c", START, str(server.directory)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    urls = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert urls == {server.url()}
    assert works(urls.pop())
    assert server.stop()
    assert not server.stop()
    assert server.url() is None


def postmaster(server: EmbeddedServer) -> psutil.Process:
    return psutil.Process(int((server.cluster / "postmaster.pid").read_text().split()[0]))


def test_starts_again_after_the_server_was_killed(ready: EmbeddedServer) -> None:
    url = ready.start()
    with psycopg.connect(url) as connection:  # a backend that outlives its postmaster for a moment
        connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
        connection.commit()
        postmaster(ready).kill()
        url = ready.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (1,)


def test_a_recycled_process_id_is_not_taken_for_the_server(ready: EmbeddedServer) -> None:
    ready.start()
    killed = postmaster(ready)
    killed.kill()
    killed.wait(30)
    file = ready.cluster / "postmaster.pid"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert ready.url() is None
    assert works(ready.start())


def test_a_killed_initialisation_leaves_no_half_cluster(server: EmbeddedServer) -> None:
    command = [sys.executable, "-c", START, str(server.directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while not (server.directory / "postgres.new" / "PG_VERSION").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert works(server.start())


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT SHOWN: only root can become another user")
def test_as_an_ordinary_user() -> None:
    user = pwd.getpwnam("nobody")
    closed = [parent for parent in Path(sys.executable).resolve().parents if not parent.stat().st_mode & 0o001]
    if closed:
        pytest.skip(f"no other user may run this interpreter: {closed[0]} is closed to them")
    folder = Path(tempfile.mkdtemp(prefix="pgneural-nobody-"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        command = [sys.executable, "-c", START, str(folder / "data")]
        result = subprocess.run(
            command, capture_output=True, text=True, user="nobody", group=user.pw_gid, extra_groups=[], cwd="/",
            env={**os.environ, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert works(result.stdout.strip())
    finally:
        subprocess.run([sys.executable, "-c", "import sys; from pathlib import Path; from pgneural.store.embedded import EmbeddedServer as E; E(Path(sys.argv[1])).stop()", str(folder / "data")], user="nobody", group=user.pw_gid, extra_groups=[], cwd="/")  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
