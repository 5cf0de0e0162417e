"""Bytes and lines of a file, within bounds: a file of any size is read in bounded memory."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pgneural.types import BadRecord

MAX_BYTES = 8 * 2**20
"""The longest record: a line of JSON or CSV, or a whole text file. A long book has about 1 MiB."""


def open_binary(path: Path) -> IO[bytes]:
    """Open a file, decompressing ``.gz``."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def whole(file: IO[bytes], origin: str) -> str | BadRecord:
    """Read a text file that is one document."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        return BadRecord(origin, f"the file is longer than {MAX_BYTES // 2**20} MiB; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return undecodable(origin, error)


def numbered(file: IO[bytes], name: str) -> Iterator[tuple[str, bytes | BadRecord]]:
    """Yield ``name:line`` with each line, or with what is wrong with it."""
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        origin = f"{name}:{number}"
        if len(line) > MAX_BYTES:
            length = len(line)
            while not line.endswith(b"\n") and (line := file.readline(MAX_BYTES)):
                length += len(line)
            yield origin, BadRecord(origin, f"the line has {length} bytes; at most {MAX_BYTES} are read")
        else:
            yield origin, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def undecodable(origin: str, error: UnicodeDecodeError) -> BadRecord:
    """Say where the bytes stop being UTF-8."""
    return BadRecord(origin, f"byte 0x{error.object[error.start]:02x} at offset {error.start} is not UTF-8; convert it")
