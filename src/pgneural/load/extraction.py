"""What is in files that need a parser, read in a process apart that is ended when a file takes too much.

The process (`extractors.program`) is started at the first file, serves one file after another, and ends by itself when
it is idle. It is a plain program that is spoken to over pipes, not a copy of this process: it knows no connection,
needs nothing of the main module of a program, and what it answers is JSON and numbers, whatever a file made of it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pgneural.errors import UnreadableInput
from pgneural.extras import require
from pgneural.load.extractors.program import LENGTH

SECONDS = 30.0
"""For one file. The slowest of real files, the whole text of a book with a million tags, takes a few seconds."""

SOUND_SHARE = 8
"""So many times longer for a sound: one of two hours takes longer to decode than any text to parse."""

START_SECONDS = 60.0
"""Until a process is ready, on a machine that is busy."""

MEMORY = 2 * 2**30
"""Address space, in bytes: a page of the greatest length that is read needs half of it."""

ANSWER_BYTES = 2**28

DTYPES = {"uint8": np.uint8, "int16": np.int16}
"""Of the arrays that are answered."""

T = TypeVar("T")


class Needs(NamedTuple):
    """What an extractor needs: a name for what it reads, the module, the extra that brings it, a share of time."""

    what: str
    module: str | None = None
    extra: str = ""
    share: int = 1


EXTRACTORS: Mapping[str, Needs] = {
    "html": Needs("HTML", "trafilatura", "html"),
    "pdf": Needs("PDF", "pypdfium2", "pdf"),
    "docx": Needs("a Word document", "docx", "office"),
    "pptx": Needs("a presentation", "pptx", "office"),
    "spreadsheet": Needs("a spreadsheet", "python_calamine", "office"),
    "opendocument": Needs("an OpenDocument file", "odfdo", "office"),
    "epub": Needs("an EPUB", "lxml", "office"),
    "rtf": Needs("RTF", "striprtf", "office"),
    "calendar": Needs("a calendar", "icalendar", "office"),
    "mail": Needs("a mail"),
    "image": Needs("a picture", "PIL", "image"),
    "audio": Needs("a sound", "av", "audio", SOUND_SHARE),
    "mesh": Needs("a mesh", "trimesh", "mesh"),
}
"""The modules of `extractors`."""


@dataclass(frozen=True)
class Extracted:
    """What was found in a file.

    Attributes:
        title: It may be empty.
        text: With a form feed between pages, slides, sheets or chapters; it may be empty.
        metadata: What the file says about itself: ``author``, ``created`` and the like.
        data: Of a picture: its RGB values, uint8, shape (height, width, 3). Of a sound: its samples, int16, shape (n,).
            Of a mesh: pictures of it from all sides, uint8, shape (views, height, width, 3).
    """

    title: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data: NDArray[Any] | None = None


class Unparsable(Exception):
    """The file cannot be turned into text; the text says why."""


def extract(kind: str, data: bytes) -> Extracted:
    """Return what is in a file.

    Args:
        kind: One of `EXTRACTORS`.
        data: The bytes of the file.

    Raises:
        Unparsable: It takes too much time or memory, the process ended, or the parser refuses it.
        MissingExtra: What reads such files is not installed.
    """
    needs = EXTRACTORS[kind]
    if needs.module:
        require(needs.what, needs.module, needs.extra)
    answer = _answer(kind.encode() + b"\n" + data, needs)
    if "refused" in answer:
        raise Unparsable(answer["refused"])
    metadata = {name: value for name, value in answer.get("metadata", {}).items() if value not in (None, "")}
    return Extracted(answer.get("title", "").strip(), answer.get("text", ""), metadata, answer.get("array"))


def _answer(request: bytes, needs: Needs) -> dict[str, Any]:
    while True:
        process = _idle()
        used = process is not None
        process = process or _Process()
        try:
            answer = process.import_(needs.module) or process.ask(request, SECONDS * needs.share)
        except _Ended:
            process.end()
            if used:  # it may have ended before the file came
                continue
            raise Unparsable("the parser crashed on it; mend the file, or save it in another format") from None
        except BaseException:  # also Ctrl-C: what is in the pipe by now nobody knows
            process.end()
            raise
        if "error" in answer:
            process.end()
            raise Unparsable(f"the parser needs more than {MEMORY / 2**30:g} GiB for it; make it smaller")
        _keep(process)
        return answer


class _Ended(Exception):
    """The process ended by itself."""


class _Process:
    """One process, and the pipes to it; used by one thread at a time."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._late = False
        self._imported: set[str | None] = {None}
        program = Path(__file__).parent / "extractors" / "program.py"
        arguments = [_python(), "-P", str(program), str(MEMORY), str(int(SECONDS * SOUND_SHARE) + 30)]
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
            raise UnreadableInput(f"the parser does not start: {arguments[0]}; is that Python whole?")

    def import_(self, module: str | None) -> dict[str, Any]:
        """Import a parser, whose time is not that of a file; return an error, if there is one."""
        if module in self._imported:
            return {}
        self._imported.add(module)
        return self.ask(f"\n{module}".encode(), START_SECONDS)

    def ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Send a request, return the answer."""
        try:
            answer = self._within(seconds, lambda: self._exchange(request))
        except (OSError, ValueError, TypeError, KeyError):
            answer = None
        if answer is None and self._late:
            raise Unparsable(
                f"it took longer to parse than {seconds:g} s, the limit for one such file; "
                "split the file, or make it smaller"
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

    def _exchange(self, request: bytes) -> object:
        assert self.process.stdin is not None
        self.process.stdin.write(LENGTH.pack(len(request)))
        self.process.stdin.write(request)
        self.process.stdin.flush()
        header = self._read(LENGTH.size)
        length = LENGTH.unpack(header)[0] if len(header) == LENGTH.size else ANSWER_BYTES
        answer = json.loads(self._read(length)) if length < ANSWER_BYTES else None
        if isinstance(answer, dict) and "shape" in answer:
            answer["array"] = self._array(answer.pop("dtype"), answer.pop("shape"))
        return answer

    def _array(self, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        if not 0 < size < ANSWER_BYTES:
            raise ValueError("the array is too large for an answer")
        return np.frombuffer(self._read(size), dtype=DTYPES[dtype]).reshape(shape)

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
    """End the processes that wait for another file, as the end of the program does."""
    with _lock:
        while waiting:
            waiting.pop().end()


def _python() -> str:
    """Return the interpreter, also where a program that embeds one is what runs."""
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
