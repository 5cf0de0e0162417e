"""The formats of files: which suffixes they have, and what reads them.

Who adds a format adds it here, and where a parser is needed an extractor (`pgneural.load.extraction`).
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pgneural.load import csvfile, jsonl, prose
from pgneural.load.lines import encoding_of, open_binary
from pgneural.load.records import Fields
from pgneural.types import BadRecord, Modality, Record

Reader = Callable[[IO[bytes], str, Fields, str], Iterator[Record | BadRecord]]
"""Of a file, its name for messages, the fields, and what ids that are not in it begin with."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffixes: Of names of such files, without the point; none where it is only told by ``--format``.
        read: Yields the records of a file.
        many: Whether a file has many documents.
        modality: Of which kind its content is.
    """

    suffixes: str
    read: Reader
    many: bool = False
    modality: Modality = Modality.TEXT


def _one(read: Callable[[IO[bytes], str], Iterator[Record | BadRecord]]) -> Reader:
    return lambda file, name, *_: read(file, name)


def _parsed(kind: str) -> Reader:
    return _one(functools.partial(prose.parsed, kind))


FORMATS: dict[str, Format] = {
    "jsonl": Format("jsonl ndjson", jsonl.records, many=True),
    "csv": Format("csv tsv", csvfile.records, many=True),
    "text": Format("txt text rst log json yaml yml toml ini cfg conf xml tex srt vtt", _one(prose.text)),
    "code": Format(
        "py pyi js mjs ts jsx tsx java kt scala c h cc cpp hpp cs go rs rb php pl r jl lua swift sql sh bash ps1 css "
        "scss vue svelte ex exs erl hs ml clj dart f90 m tf proto graphql",
        _one(prose.text),
    ),
    "markdown": Format("md markdown mdx", _one(prose.markdown)),
    "notebook": Format("ipynb", _one(prose.notebook)),
    "html": Format("html htm xhtml", _one(prose.html)),
    "pdf": Format("pdf", _parsed("pdf")),
    "docx": Format("docx docm", _parsed("docx")),
    "pptx": Format("pptx pptm", _parsed("pptx")),
    "spreadsheet": Format("xlsx xlsm xlsb xls ods", _parsed("spreadsheet")),
    "opendocument": Format("odt odp", _parsed("opendocument")),
    "epub": Format("epub", _parsed("epub")),
    "rtf": Format("rtf", _parsed("rtf")),
    "mail": Format("eml", _parsed("mail")),
    "calendar": Format("ics", _parsed("calendar")),
    "image": Format(
        "jpg jpeg jpe jfif png gif webp bmp tif tiff ppm pgm pbm avif jp2 ico",
        _parsed("image"),
        modality=Modality.IMAGE,
    ),
    "mesh": Format("off obj stl ply glb", _parsed("mesh"), modality=Modality.MESH),
    "audio": Format(
        "wav mp3 flac ogg oga opus m4a aac aif aiff au amr wma mka", _parsed("audio"), modality=Modality.AUDIO
    ),
}
"""The formats by name; ``--format`` takes these."""

MEDIA = {name for name, format_ in FORMATS.items() if format_.modality is not Modality.TEXT}
"""Those of what is no text."""

SUFFIXES = {f".{suffix}": name for name, format_ in FORMATS.items() for suffix in format_.suffixes.split()}
"""The name of the format of each suffix."""


SNIFFED = 2**13
"""From so many bytes it is told what a file without a known suffix is."""

MAGIC = {
    "pdf": re.compile(rb"%PDF-"),
    "image": re.compile(
        rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|II\*\0\x08\0|MM\0\*\0\0|RIFF.{4}WEBP|BM.{4}\0{4}|.{4}ftypavi[fs]"
        rb"|\0\0\0\x0cjP  |P[1-6]\s+\d+\s+\d+\s",
        re.DOTALL,
    ),
    "mesh": re.compile(
        rb"(?:#[^\n]*\n)*(?:ST|C|N)*OFF\s*(?:#[^\n]*\n)*\d+\s+\d+\s|ply\r?\nformat |glTF[\1\2]\0\0\0"
        rb"|solid[^\n]*\n[ \t]*facet ",
        re.IGNORECASE,
    ),
    "audio": re.compile(
        rb"RIFF.{4}WAVE|ID3[\2-\4]|\xff[\xfa\xfb\xf2\xf3]|fLaC|OggS|FORM.{4}AIF[FC]|.{4}ftypM4A |\.snd|#!AMR", re.DOTALL
    ),
}
"""How files of some formats begin."""

_BINARY = re.compile(rb"[\0-\x08\x0e-\x1a]")


def unpacked(path: Path) -> Path:
    """Return the name of a file without ``.gz``."""
    return path.with_suffix("") if path.suffix == ".gz" else path


def format_of(path: Path) -> str | None:
    """Return the format of a file: by its suffix, below ``.gz``, else by how it begins; None where that is unknown."""
    if known := SUFFIXES.get(unpacked(path).suffix.lower()):
        return known
    try:
        with open_binary(path) as file:
            return sniffed(file.read(SNIFFED) or b"")
    except (OSError, EOFError, ValueError, zlib.error):
        return None


def sniffed(head: bytes) -> str | None:
    """Return the format that the first bytes of a file tell; None where they tell none."""
    known = next((name for name, magic in MAGIC.items() if magic.match(head)), None)
    return known or ("text" if _is_text(head) else None)


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text: UTF-8 without control characters, or with a byte order mark."""
    if encoding_of(head):
        return True
    if not head or _BINARY.search(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character was cut
    return True
