"""Reading the files of a run, each with the reader that it needs; and what can be said of them afterwards.

The external id of a file that is one document is its normal absolute path, so that two folders with a ``README.md``
each never overwrite one another, however they are spelled. A document's uri says which file it came from, for one
of many in a file with the document's id behind ``#``: by it, documents are known whose files are gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote_to_bytes, urlsplit

from pgneural.errors import UnreadableInput
from pgneural.load.formats import FORMATS, SNIFFED, Reader, format_of, sniffed, unpacked
from pgneural.load.lines import NotAFile, open_binary
from pgneural.load.records import Fields
from pgneural.load.selection import Selection
from pgneural.load.walk import UNKNOWN_KIND, LeftOut, Walk, covers, is_pattern, normal, shown
from pgneural.types import BadRecord, Modality, Record


class Reading(Iterator[Record | BadRecord]):
    """The records of files, folders, patterns and ``-``, one after another.

    Attributes:
        left_out: What was not read, and why.
        accepts: Tells which kinds of content are wanted; by default all are.
        roots: For each path that was given, whether it covers a file.
        bases: Their beginnings, in the normal form.
    """

    def __init__(
        self,
        paths: Iterable[str | Path] = (),
        *,
        format: str | None = None,
        fields: Fields | None = None,
        follow_links: bool = False,
        selection: Selection | None = None,
    ) -> None:
        self.accepts: Callable[[Modality], bool] = lambda _: True
        self._format, self._fields = format, fields or Fields()
        self.left_out = LeftOut()
        self.roots: list[Callable[[str], bool]] = []
        self.bases: list[str] = []
        self._walk = Walk(follow_links, self.left_out, selection)
        self._to_the_end: set[int] = set()
        self._records = self._of_all([str(path) for path in paths])
        self._peeked: list[Record | BadRecord] = []
        self._modality = Modality.TEXT  # of the file that is being read

    def __next__(self) -> Record | BadRecord:
        """Return the next record."""
        while self._peeked:
            record = self._peeked.pop()
            if self._accepted(self._modality, record.origin):
                return record
        return next(self._records)

    @property
    def modality(self) -> Modality:
        """Of which kind the file is that was read last, whether or not it could be read."""
        return self._modality

    def peek(self) -> Record | BadRecord | None:
        """Return the next record without taking it, None at the end."""
        if not self._peeked and (first := next(self._records, None)) is not None:
            self._peeked.append(first)
        return self._peeked[0] if self._peeked else None

    def of(self, path: str) -> Iterator[Record | BadRecord]:
        """Yield the records of one path more."""
        if path == "-":
            file, reader = _standard_input(self._format)
            yield from reader(file, "stdin", self._fields, str(Path("stdin").absolute()))
        else:
            found, repeats = False, self._walk.repeats
            for file_path, kind in self._files(path):
                found = True
                yield from self._of_file(file_path, kind)
            if not found and self._walk.repeats == repeats:
                told = "".join(f"; {number:,} {reason}" for reason, number in self.left_out.counts.items())
                raise UnreadableInput(f"{shown(path)}: nothing there can be read{told}" if told else _nothing(path))

    def gone(self, external_id: str, uri: str, seen: Callable[[str], bool]) -> bool:
        """Whether a stored document came from one of these paths and is not there any more, or is ignored by now.

        Args:
            external_id: Of the document.
            uri: Where it came from.
            seen: Whether this run has met an external id.
        """
        path, fragment = _origin(uri)
        if (fragment is None and external_id != Path(path).as_posix()) or fragment not in (
            None,
            _fragment(external_id),
        ):
            return False
        if not any(root(path) for root in self.roots):
            return False
        if fragment is not None and hash(path) in self._to_the_end:
            return not seen(external_id)
        return _vanished(path) or self.left_out.unwanted(path)

    def _of_all(self, paths: list[str]) -> Iterator[Record | BadRecord]:
        for path in paths:  # before anything is read
            if path != "-" and not os.path.exists(path) and not is_pattern(path):
                raise UnreadableInput(_nothing(path))
        for path in paths:
            yield from self.of(path)

    def _files(self, path: str) -> Iterator[tuple[Path, str]]:
        """Yield the files that a path stands for, each with its format."""
        if os.path.isdir(path):
            self._root(normal(path), None)
            found = self._walk.folder(str(Path(path)))
        elif os.path.exists(path):
            self._root(normal(path), path)
            kind = self._format or format_of(Path(path))
            if not kind and os.path.isfile(path):
                raise UnreadableInput(
                    f"{path}: no reader for {Path(path).suffix or 'a name without a suffix'}, and it is no text; "
                    f"known are {', '.join(FORMATS)}: say --format if it is one of them"
                )
            yield from ((file, kind or "text") for file in self._walk.file(str(Path(path))))
            return
        else:
            pattern = normal(path)
            self.roots.append(lambda file: covers(pattern, file))
            self.bases.append(re.split(r"[*?\[]", pattern)[0])
            found = self._walk.pattern(path)
        for file in found:
            kind = self._format or format_of(file)
            if not kind:
                self.left_out.add(f"{UNKNOWN_KIND} ({shown(file.suffix.lower()) or 'no suffix'})", file)
            elif self._accepted(FORMATS[kind].modality, file):
                yield file, kind

    def _accepted(self, modality: Modality, file: Path | str) -> bool:
        accepted = self.accepts(modality)
        if not accepted:
            self.left_out.add(f"of a kind that the encoder does not accept ({modality})", file)
        return accepted

    def _root(self, root: str, file: str | None) -> None:
        below = root.rstrip(os.sep) + os.sep
        self.bases.append(root)
        self.roots.append((lambda path: path == root) if file else lambda path: path.startswith(below))

    def _of_file(self, path: Path, kind: str) -> Iterator[Record | BadRecord]:
        name, full = shown(path), normal(path)
        whole, self._modality = True, FORMATS[kind].modality
        try:
            with open_binary(path) as file:
                for record in FORMATS[kind].read(file, name, self._fields, full):
                    whole = whole and isinstance(record, Record)
                    yield _placed(record, full, one=not FORMATS[kind].many)
        except NotAFile as error:
            yield BadRecord(name, str(error))
            return
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            yield BadRecord(name, f"byte 0x{byte:02x} is not {error.encoding}, as the file begins; convert it to UTF-8")
            return
        except (OSError, EOFError, zlib.error) as error:
            yield BadRecord(name, f"cannot be read: {error.__class__.__name__}: {error}")
            return
        if whole:
            self._to_the_end.add(hash(full))


def read(
    paths: Iterable[str | Path],
    *,
    format: str | None = None,
    fields: Fields | None = None,
    follow_links: bool = False,
    selection: Selection | None = None,
) -> Reading:
    """Return the records of files, folders (all files of a known kind below), glob patterns and ``-``.

    Args:
        paths: Where to read; ``-`` is standard input.
        format: One of `FORMATS`; by default the file name's suffix decides.
        fields: Which fields of CSV and JSONL hold id, title and text.
        follow_links: Whether to read also what symbolic links lead to.
        selection: What of folders is read; by default neither hidden files nor what ``.gitignore`` names.

    Raises:
        UnreadableInput: When the first record is asked for: a path does not exist, holds nothing, or is of no known
            kind.
    """
    return Reading(paths, format=format, fields=fields, follow_links=follow_links, selection=selection)


def _nothing(path: str) -> str:
    return f"{shown(path)}: no such file, and no file of a known kind ({', '.join(FORMATS)}) there"


def _placed(record: Record | BadRecord, path: str, *, one: bool) -> Record | BadRecord:
    """Give a record the file that it came from as its uri, unless it says another."""
    if not isinstance(record, Record):
        return record
    uri = Path(path).as_uri()
    if one:
        metadata = {**record.metadata, **file_metadata(Path(path))}
        return replace(record, external_id=Path(path).as_posix(), uri=uri, metadata=metadata)
    return record if record.uri else replace(record, uri=f"{uri}#{_fragment(record.external_id)}")


def file_metadata(path: Path) -> dict[str, Any]:
    """Return what is known of a file that is one document, for filters: path, folder, suffix, size, modified."""
    about = path.stat()
    known = {
        "path": shown(path.as_posix()),
        "folder": shown(path.parent.as_posix()),
        "suffix": shown(unpacked(path).suffix.lower().removeprefix(".")),
        "size": about.st_size,
    }
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a year that no calendar has
        known["modified"] = datetime.fromtimestamp(about.st_mtime, UTC).isoformat(timespec="seconds")
    return known


def _fragment(external_id: str) -> str:
    return quote(external_id, safe="/:@", errors="surrogatepass")


def _origin(uri: str) -> tuple[str, str | None]:
    """Return the path of a ``file:`` uri, and what stands behind ``#``."""
    parts = urlsplit(uri)
    return os.fsdecode(unquote_to_bytes(parts.path)), parts.fragment or None


def _vanished(path: str) -> bool:
    """Whether a file is gone; one that cannot be looked at is not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _standard_input(format: str | None) -> tuple[IO[bytes], Reader]:
    if sys.stdin is None:
        raise UnreadableInput("standard input is closed; name a file")
    file = sys.stdin.buffer
    if format is None:
        start = file.peek(1)[:SNIFFED] if hasattr(file, "peek") else b""
        format = "jsonl" if start.lstrip().startswith(b"{") else sniffed(start) or "text"
    return cast(IO[bytes], file), FORMATS[format].read
