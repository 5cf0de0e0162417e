"""Which files of this host are read where a database names them.

A picture, a sound or a mesh is stored with its vectors and its uri, and stays where it is. Another model needs it
again, and a worker then reads the file. But whoever may write to a database may write any uri there: so a worker reads
files below those folders alone that the host says.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from pgneural.errors import UnreadableInput, UnsupportedContent
from pgneural.load.formats import FORMATS, format_of
from pgneural.load.lines import open_binary
from pgneural.load.records import Fields
from pgneural.types import BadRecord, Content

_folders: set[str] = set()


def permit_files(*folders: str | Path) -> None:
    """Let this process read files below folders where a database names them.

    Raises:
        UnreadableInput: A name is empty, which would be the working directory.

    Example:
        >>> permit_files("/srv/photos")
    """
    if not all(str(folder) for folder in folders):
        raise UnreadableInput("the name of a permitted folder is empty; give a folder, . for the working directory")
    _folders.update(os.path.realpath(folder) for folder in folders)


def with_data(content: Content) -> Content:
    """Return a content that is elsewhere with what is there.

    Raises:
        UnsupportedContent: This host does not permit its file, or it cannot be read.
    """
    path = _permitted(content)
    try:
        kind = format_of(path)
        if kind is None or FORMATS[kind].modality is not content.modality:
            raise UnsupportedContent(f"{path} is no {content.modality} any more; index it again")
        with open_binary(path) as file:
            record = next(iter(FORMATS[kind].read(file, str(path), Fields(), str(path))))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, UnsupportedContent):
            raise
        raise UnsupportedContent(f"{path} cannot be read: {error}; index it again") from error
    if isinstance(record, BadRecord):
        raise UnsupportedContent(str(record))
    return replace(content, data=record.data)


def _permitted(content: Content) -> Path:
    path = _path(content.uri or "")
    if not path:
        raise UnsupportedContent(
            f"the {content.modality} {content.title!r} has no file, uri is {content.uri!r}; index it again"
        )
    real = os.path.realpath(path)
    if not any(os.path.commonpath([real, folder]) == folder for folder in _folders):
        raise UnsupportedContent(
            f"the database names file {path}, which this host does not permit; permit its folder with --files "
            "(PGNEURAL_FILES), or with pgneural.load.permitted_files.permit_files, or index the file again"
        )
    return Path(real)


def _path(uri: str) -> str:
    """Return the path of a uri that names a file of this host; empty where it names none."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    path = os.fsdecode(unquote_to_bytes(parts.path))
    own = parts.scheme == "file" and parts.netloc in ("", "localhost")
    return path if own and "\0" not in path else ""
