"""Bytes and lines of a file, within bounds: a file of any size is read in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from pgneural.types import BadRecord

MAX_BYTES = 8 * 2**20
"""The longest record: a line of JSON or CSV, or a whole text file. A long book has about 1 MiB."""

MAX_LINE = 2**30
"""A line that is longer than this has no end that is worth looking for."""

MAX_BLANK_LINES = 1_000_000
"""So many in a row are no data: a compressed file of a few kilobytes may hold thousands of millions."""

HEAD = 2**16
"""From so many bytes a file's encoding, its line ends and the delimiter of a CSV are told."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class NotAFile(OSError):
    """What has this path is no file with an end."""


def open_binary(path: Path) -> IO[bytes]:
    """Open a file, decompressing ``.gz``.

    Raises:
        NotAFile: It is a pipe, a device or the like, which may never end, or never begin.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotAFile(f"it is {kind(path)}, not a file; give a file, or - for standard input")
    if path.suffix != ".gz":
        return file
    unpacked = gzip.GzipFile(fileobj=file)
    unpacked.myfileobj = file  # type: ignore[assignment]  # closed together with it
    return cast(IO[bytes], unpacked)


def kind(path: Path) -> str:
    """Say what is there, where it is no file."""
    mode = path.stat().st_mode
    kinds = {"a named pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a folder": stat.S_ISDIR}
    return next((name for name, is_ in kinds.items() if is_(mode)), "a device")


def encoding_of(head: bytes) -> str | None:
    """Return the Unicode encoding that the first bytes tell, by a byte order mark or by every other byte; else None."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    even, odd = head[0 : HEAD // 8 : 2], head[1 : HEAD // 8 : 2]
    if len(odd) >= 4 and odd.count(0) > 0.9 * len(odd) and not even.count(0):
        return "utf-16-le"
    if len(odd) >= 4 and even.count(0) > 0.9 * len(even) and not odd.count(0):
        return "utf-16-be"
    return None


def whole(file: IO[bytes], origin: str) -> str | BadRecord:
    """Read a text file that is one document."""
    data = whole_bytes(file, origin)
    return data if isinstance(data, BadRecord) else decoded(data, encoding_of(data[:HEAD]) or "utf-8", origin)


def whole_bytes(file: IO[bytes], origin: str, most: int = MAX_BYTES) -> bytes | BadRecord:
    """Read a file that is one document."""
    data = file.read(most + 1)
    if len(data) > most:
        return BadRecord(origin, f"the file is longer than {most // 2**20} MiB; split it")
    return data


def decoded(data: bytes, encoding: str, origin: str) -> str | BadRecord:
    """Decode a document, or say where that fails."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        return undecodable(origin, error)


class Utf8(io.RawIOBase):
    r"""A file of lines as UTF-8 with ``\n`` at their ends, whatever of Unicode and whichever ends it has.

    Args:
        file: The file.
        flowing: Whether to give what a pipe has at once, not when there is more; its head then ends with some line.
    """

    def __init__(self, file: IO[bytes], *, flowing: bool = False) -> None:
        self._flows = flowing and hasattr(file, "read1") and not file.seekable()
        self._some = cast(io.BufferedReader, file).read1 if self._flows else file.read
        self.head, ended = self._begin()
        encoding = encoding_of(self.head)
        if encoding == "utf-8-sig":
            self.head, encoding = self.head.removeprefix(codecs.BOM_UTF8), None
        self._decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        self._returns = False
        self._offset = 0
        self.head = self._converted(self.head, ended)
        self._returns = b"\r" in self.head[:-1] and b"\n" not in self.head
        self._left = self.head = self.head.replace(b"\r", b"\n") if self._returns else self.head

    def _begin(self) -> tuple[bytes, bool]:
        """Return the head, and whether the file ends there."""
        head = b""
        while len(head) < HEAD and not (self._flows and b"\n" in head):
            data = self._some(HEAD - len(head))
            if not data:
                return head, True
            head += data
        return head, False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read some bytes."""
        while not self._left:
            data = self._some(HEAD)
            self._left = self._converted(data, not data)
            if not data:
                break
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        length = min(len(into), len(self._left))
        into[:length] = self._left[:length]
        self._left = self._left[length:]
        return length

    def _converted(self, data: bytes, last: bool) -> bytes:
        if self._decoder is not None:
            data = self._decoder.decode(data, last).encode("utf-8", "surrogatepass")
        return data.replace(b"\r", b"\n") if self._returns else data


def numbered(file: IO[bytes], name: str) -> Iterator[tuple[int, bytes | BadRecord]]:
    """Yield the number of each line with the line, or with what is wrong with it; the file is `Utf8`, buffered."""
    number = blank = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        if len(line) > MAX_BYTES:
            length = len(line)
            while not line.endswith(b"\n") and length < MAX_LINE and (line := file.readline(MAX_BYTES)):
                length += len(line)
            yield number, BadRecord(f"{name}:{number}", _too_long(length))
            if length >= MAX_LINE:
                return
            continue
        blank = 0 if len(line) > 2 or line.strip() else blank + 1
        if blank > MAX_BLANK_LINES:
            yield number, BadRecord(f"{name}:{number}", f"{blank} blank lines in a row; the rest is not read")
            return
        yield number, line


def _too_long(length: int) -> str:
    if length < MAX_LINE:
        return f"the line has {length} bytes; at most {MAX_BYTES} are read"
    return f"the line has more than {MAX_LINE} bytes, at most {MAX_BYTES} are read; the rest of the file is left out"


def undecodable(origin: str, error: UnicodeDecodeError) -> BadRecord:
    """Say where the bytes stop being what they are read as."""
    encoding = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8"}.get(error.encoding, error.encoding)
    remedy = "convert it" if encoding == "UTF-8" else "convert it to UTF-8"
    byte = error.object[error.start]
    return BadRecord(origin, f"byte 0x{byte:02x} at offset {error.start} is not {encoding}; {remedy}")
