"""Programs that start in no time: a process that has loaded all they need forks one for each call.

``ForkingServer`` starts that process and writes programs ``pgneural``, ``alembic`` and ``python`` into a folder for the
front of a ``PATH``. Each is a few lines: it sends its arguments, folder, environment, and standard input, output and
error to the process, which forks a child that has all these for its own, and returns the child's exit status. So
what is run is isolated as ever; only loading libraries and the model, ten seconds of a processor, is not repeated.

Run as ``python -m tests.docs.forking SOCKET MODULE…``, it is that process.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(8) or 255))
"""

START_SECONDS = 120


class ForkingServer:
    """The process, as a context; ``folder`` has the programs.

    Args:
        *more: Modules that it loads beside those that all programs need.
    """

    def __init__(self, *more: str) -> None:
        self._more = more
        self.folder = Path(tempfile.mkdtemp(prefix="pgneural-forks-"))
        self.address = str(self.folder / "socket")
        for name in PROGRAMS:
            program = self.folder / name
            program.write_text(CLIENT.format(python=sys.executable, address=self.address))
            program.chmod(0o755)

    def __enter__(self) -> ForkingServer:
        # a fork has no threads but its own, so the model must not count on others
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "tests.docs.forking", self.address, *self._more]
        self._process = subprocess.Popen(
            command, env=environment, cwd=Path(__file__).parents[2], start_new_session=True
        )
        deadline = time.monotonic() + START_SECONDS
        while not Path(self.address).exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)  # with a child that still runs
        self._process.wait()
        shutil.rmtree(self.folder)


def serve(address: str) -> None:
    """Fork a child for each call, one after the other."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        os.rename(f"{address}.new", address)  # now it answers
        while True:
            calling, _ = listening.accept()
            with calling:
                _answer(calling)


def _answer(calling: socket.socket) -> None:
    """Fork the program that is called, wait for its end, and say how it ended."""
    _, files, _, _ = socket.recv_fds(calling, 1, 3)
    asked = json.loads(b"".join(iter(lambda: calling.recv(65536), b"")))
    child = os.fork()
    if child == 0:
        calling.close()
        _become(files, *asked)
    for file in files:
        os.close(file)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calling.sendall(str(status if status >= 0 else 128 - status).encode())


def _become(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the program that was called, to its end."""
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    name = Path(arguments[0]).name
    sys.argv = [name, *arguments[1:]]
    status = _run(PROGRAMS[name])
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(program: Callable[[], Any]) -> int:
    """Return the exit status of a program, as the interpreter makes it."""
    try:
        program()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _python() -> None:
    """Run standard input, as ``python -W error -``."""
    assert sys.argv[1:] == ["-W", "error", "-"]
    warnings.simplefilter("error")
    sys.path.insert(0, "")
    sys.argv = ["-"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(sys.stdin.read(), "<stdin>", "exec"), vars(main))


def _pgneural() -> None:
    from pgneural.cli import main

    main()


def _alembic() -> None:
    from alembic.config import main

    main()


PROGRAMS: dict[str, Callable[[], Any]] = {"pgneural": _pgneural, "alembic": _alembic, "python": _python}


def load(*more: str) -> None:
    """Load what nearly all programs need; a warning is an error, as it is for a block that imports by itself.

    Torch is for ``more``: it makes each fork take twice as long, and few pages need it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("pgneural.cli", "pgneural.migrate", "alembic.config", "trafilatura", *more):
            importlib.import_module(name)
        from pgneural.encoders import minilm

        made = functools.cache(minilm.minilm)  # every child has the one that is loaded here
        functools.update_wrapper(made, minilm.minilm)
        minilm.minilm = made
        minilm.minilm().encode_query("ready")
    gc.freeze()  # so that no child copies all this to look for garbage


if __name__ == "__main__":
    del sys.path[0]  # the folder of the checkout, where a user is not
    load(*sys.argv[2:])
    serve(sys.argv[1])
