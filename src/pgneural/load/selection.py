"""Which of the files below a folder are wanted: hidden ones, those that ``.gitignore`` names, patterns of the caller's.

Patterns are those of ``.gitignore`` (https://git-scm.com/docs/gitignore): ``*.log``, ``build/``, ``/docs/**``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from pgneural.errors import UnreadableInput
from pgneural.load.lines import open_binary

HIDDEN = "hidden (--hidden reads them)"
IGNORED = "named by .gitignore (--no-ignore reads them)"
EXCLUDED = "excluded"
NOT_INCLUDED = "not included"

MOST_BYTES = 2**20
"""A longer ``.gitignore`` is none."""

Rules = tuple[tuple[str, GitIgnoreSpec], ...]
"""What holds below a folder: folders with ``.gitignore``, the outermost first, and what theirs say."""


@dataclass(frozen=True)
class Selection:
    """What a run reads of the folders that it is given; what is given by its own path is always read.

    Attributes:
        hidden: Whether files and folders whose names begin with a point are read.
        ignored: Whether what a ``.gitignore`` names is read.
        include: Patterns, of which a file must match one, if there are any.
        exclude: Patterns of what is not read.

    Raises:
        UnreadableInput: One of them is no pattern.
    """

    hidden: bool = False
    ignored: bool = False
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Read the patterns."""
        for pattern in (*self.include, *self.exclude):
            if not _is_pattern(pattern):
                raise UnreadableInput(f"{pattern!r} is no pattern of .gitignore; write one like *.md or drafts/")
        object.__setattr__(self, "_included", GitIgnoreSpec.from_lines(self.include))
        object.__setattr__(self, "_excluded", GitIgnoreSpec.from_lines(self.exclude))

    def rules(self, folder: str, outer: Rules) -> Rules:
        """Return what holds in a folder, where `outer` holds around it."""
        if self.ignored:
            return ()
        try:
            with open_binary(Path(folder, ".gitignore")) as file:
                lines = file.read(MOST_BYTES).decode("utf-8", "surrogateescape").splitlines()
        except OSError:
            return outer
        return *outer, (folder, _rules(lines))

    def reason(self, path: str, root: str, rules: Rules, *, folder: bool) -> str | None:
        """Return why something below a root is not read; None where it is."""
        if not self.hidden and os.path.basename(path).startswith("."):
            return HIDDEN
        below = _below(path, root, folder)
        if self._excluded.match_file(below):  # type: ignore[attr-defined]
            return EXCLUDED
        if self.include and not folder and not self._included.match_file(below):  # type: ignore[attr-defined]
            return NOT_INCLUDED
        for base, spec in reversed(rules):  # the innermost decides
            if (named := spec.check_file(_below(path, base, folder)).include) is not None:
                return IGNORED if named else None
        return None


def _rules(lines: Sequence[str]) -> GitIgnoreSpec:
    """Read patterns; as git does, pass over lines that are none."""
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _below(path: str, base: str, folder: bool) -> str:
    relative = os.path.relpath(path, base).replace(os.sep, "/")
    return relative + "/" if folder else relative
