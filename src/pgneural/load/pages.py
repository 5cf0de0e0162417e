"""The text of HTML pages, read in a process apart that is ended when a page takes too much.

The process (`extract`) is started at the first page, serves one page after another, and ends by itself when it is
idle. It is a plain program that is spoken to over pipes, not a copy of this process: it knows no connection, needs
nothing of the main module of a program, and what it answers is JSON, whatever a page made of it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pgneural.errors import UnreadableInput
from pgneural.extras import require
from pgneural.load.extract import LENGTH

SECONDS = 30.0
"""For one page. The slowest of real pages, the whole text of a book with a million tags, takes a few seconds."""

START_SECONDS = 60.0
"""Until a process is ready, on a machine that is busy."""

MEMORY = 2 * 2**30
"""Address space, in bytes: a page of the greatest length that is read needs half of it."""

ANSWER_BYTES = 2**28

T = TypeVar("T")


class Unparsable(Exception):
    """The page cannot be turned into text; the text says why."""


def extract(page: str) -> tuple[str, str]:
    """Return the title and the main text of a page; both may be empty.

    Raises:
        Unparsable: It takes too much time or memory, or the process ended.
        MissingExtra: What reads pages is not installed.
    """
    data = page.encode("utf-8", "replace")
    while True:
        process = _idle()
        used = process is not None
        process = process or _Process()
        try:
            answer = process.ask(data)
        except _Ended:
            process.end()
            if used:  # it may have ended before the page came
                continue
            raise Unparsable("the parser crashed on it; mend the page, or give its text as .txt") from None
        except BaseException:  # also Ctrl-C: what is in the pipe by now nobody knows
            process.end()
            raise
        if "error" in answer:
            process.end()
            raise Unparsable(f"the parser needs more than {MEMORY / 2**30:g} GiB for it; split the page")
        _keep(process)
        return str(answer.get("title", "")), str(answer.get("text", ""))


class _Ended(Exception):
    """The process ended by itself."""


class _Process:
    """One process, and the pipes to it; used by one thread at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._late = False
        arguments = [_python(), "-P", str(Path(__file__).with_name("extract.py")), str(MEMORY), str(int(SECONDS) + 30)]
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us; we then end it
        )
        try:
            ready = self._within(START_SECONDS, lambda: self._read(1))
        except BaseException:
            self.end()
            raise
        if ready != b"+":
            self.end()
            raise UnreadableInput(f"HTML cannot be read: {arguments[0]} does not start; is trafilatura whole there?")

    def ask(self, page: bytes) -> dict[str, object]:
        """Send a page, return the answer."""
        try:
            answer = self._within(SECONDS, lambda: self._exchange(page))
        except (OSError, ValueError):
            answer = None
        if answer is None and self._late:
            raise Unparsable(
                f"it took longer to parse than {SECONDS:g} s, the limit for one page; "
                "split the page, or give its text as .txt"
            )
        if not isinstance(answer, dict):
            raise _Ended
        return answer

    def end(self) -> None:
        """End it, whatever it does."""
        if self.owner != os.getpid():  # it belongs to the process that we are a copy of
            self.process.returncode = 0
        else:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def fresh(self) -> bool:
        """Whether it can be asked once more."""
        return not self._late and self.process.poll() is None

    def _exchange(self, page: bytes) -> object:
        assert self.process.stdin is not None
        self.process.stdin.write(LENGTH.pack(len(page)) + page)
        self.process.stdin.flush()
        header = self._read(LENGTH.size)
        length = LENGTH.unpack(header)[0] if len(header) == LENGTH.size else ANSWER_BYTES
        return json.loads(self._read(length)) if length < ANSWER_BYTES else None

    def _read(self, length: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(length)

    def _within(self, seconds: float, exchange: Callable[[], T]) -> T:
        """Exchange something; what is not done in time fails because the process is ended."""
        timer = threading.Timer(seconds, self._overdue)
        timer.daemon = True
        timer.start()
        try:
            return exchange()
        finally:
            timer.cancel()
            timer.join()

    def _overdue(self) -> None:
        self._late = True
        self.process.kill()


waiting: list[_Process] = []
_lock = threading.Lock()


def _idle() -> _Process | None:
    with _lock:
        while waiting:
            process = waiting.pop()
            if process.owner == os.getpid() and process.fresh:
                return process
            process.end()
    return None


def _keep(process: _Process) -> None:
    with _lock:
        if not waiting:
            atexit.unregister(end_all)
            atexit.register(end_all)
        waiting.append(process)


def end_all() -> None:
    """End the processes that wait for another page, as the end of the program does."""
    with _lock:
        while waiting:
            waiting.pop().end()


def _python() -> str:
    """Return the interpreter, also where a program that embeds one is what runs."""
    require("HTML", "trafilatura", "html")
    beside = Path(sys.exec_prefix) / ("python.exe" if os.name == "nt" else "bin/python3")
    embedded = "py" not in Path(sys.executable or "").name.lower()
    return str(beside) if embedded and beside.exists() else sys.executable


def _environment() -> dict[str, str]:
    """Return our environment without what is about databases, so that the same packages are found."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTHON", "DATABASE"))}
    home = {"PYTHONHOME": os.environ["PYTHONHOME"]} if "PYTHONHOME" in os.environ else {}
    return {
        **own,
        **home,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
