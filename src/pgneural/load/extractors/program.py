"""A program of its own that turns files into text: whoever sends it a file can end it.

A file is data from outside, and the parsers are big and partly written in C: one file can take hours, all memory,
or the process with it. `pgneural.load.extraction` starts this program and says what is then told to the user.

It reads requests from standard input and answers on standard output: a length of 8 bytes and that many bytes. A request
is the name of an extractor, a line end and the bytes of the file; without a name, that of a module to import. An
answer is JSON; where it has a ``shape``, so many bytes follow it, which are the numbers of an array. The program ends
when standard input does, after `FILES`, or when nothing came for a while.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import select
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

FILES = 1000
"""After so many another process takes over: what parsers keep for later adds up."""

IDLE_SECONDS = 60

TOLD = 200
"""So many characters of what a parser says about a file are told."""

LENGTH = struct.Struct(">Q")


def main(memory: int, seconds: int) -> None:
    """Answer until nobody asks any more."""
    requests, answers = _private_pipes()
    _limit(memory)
    _know_extractors()
    answers.write(b"+")
    for _ in range(FILES):
        if os.name != "nt" and not select.select([requests], [], [], IDLE_SECONDS)[0]:
            return
        header = _read(requests, LENGTH.size)
        if len(header) < LENGTH.size:
            return
        kind, _, data = _read(requests, LENGTH.unpack(header)[0]).partition(b"\n")
        _alarm(seconds)
        answer = answer_to(kind.decode(), data)
        _alarm(0)
        array = answer.pop("array", b"")
        encoded = json.dumps(answer).encode()
        _write(answers, LENGTH.pack(len(encoded)) + encoded)
        _write(answers, array)
        if "error" in answer:
            return


def _know_extractors() -> None:
    """Make the extractors a package here without pgneural, whose import takes longer than most files."""
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        "extractors", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["extractors"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["extractors"])


def answer_to(kind: str, data: bytes) -> dict[str, Any]:
    """Extract a file; whatever its parser raises is a reason to refuse it."""
    try:
        if not kind:
            importlib.import_module(data.decode())
            return {}
        answer: dict[str, Any] = importlib.import_module(f"extractors.{kind}").extract(data)
    except MemoryError:
        return {"error": "memory"}
    except Exception as error:
        said = " ".join(str(error).split())[:TOLD]
        return {"refused": f"it cannot be read: {type(error).__name__}: {said}; is it what its name says?"}
    return {name: _clean(value) for name, value in answer.items()}


_NO_TEXT = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f\ufffe\uffff]")


def _clean(value: Any) -> Any:
    """Put a blank for each control character, which parts words, and for each half of a surrogate pair."""
    if isinstance(value, dict):
        return {name: _clean(each) for name, each in value.items()}
    if not isinstance(value, str):
        return value
    whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _NO_TEXT.sub(" ", whole)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: what a library prints must not get between the answers."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return os.fdopen(requests, "rb", buffering=0), os.fdopen(answers, "wb", buffering=0)


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # not on this system
        return
    for what, wanted in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(what)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (limit, hard))


def _alarm(seconds: int) -> None:
    """End this process after a while even if whoever would end it is gone; 0 calls it off."""
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)


def _read(file: BinaryIO, length: int) -> bytes:
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _write(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
