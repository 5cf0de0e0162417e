"""Which of the files below a folder are wanted: hidden ones, those that ``.gitignore`` names, patterns of the caller's.

Patterns are those of ``.gitignore`` (https://git-scm.com/docs/gitignore): ``*.log``, ``build/``, ``/docs/**``.
"""

from __future__ import annotations

import os
import re
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

MOST_BYTES = 2**18
"""What is beyond in a ``.gitignore`` is not read."""

LONGEST = 1000
MOST_LINES = 2000
MOST_STARS = 3
"""Of a line of a ``.gitignore``, the most characters, and the most ``*`` in a name: others are passed over, since who
wrote them might want to stop whoever reads the folder."""

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

    def around(self, folder: str) -> Rules:
        """Return what the folders around one say, up to that of its repository; nothing where they name itself."""
        folder, outside = os.path.abspath(folder), []
        parent = folder
        while parent != os.path.dirname(parent) and not os.path.exists(os.path.join(parent, ".git")):
            parent = os.path.dirname(parent)
            outside.append(parent)
        if not outside or not os.path.exists(os.path.join(parent, ".git")):
            return ()
        rules: Rules = ()
        for each in reversed(outside):
            rules = self.rules(each, rules)
        return () if self._named(folder, rules, folder=True) else rules

    def reason(self, path: str, root: str, rules: Rules, *, folder: bool) -> str | None:
        """Return why something below a root is not read; None where it is."""
        if not self.hidden and os.path.basename(path).startswith("."):
            return HIDDEN
        return self.unselected(path, root, rules, folder=folder)

    def unselected(self, path: str, root: str, rules: Rules, *, folder: bool) -> str | None:
        """Return the same of what a pattern of the caller's has reached, hidden or not."""
        below = _below(path, root, folder)
        if self._excluded.match_file(below):  # type: ignore[attr-defined]
            return EXCLUDED
        if self.include and not folder and not self._included.match_file(below):  # type: ignore[attr-defined]
            return NOT_INCLUDED
        return IGNORED if self._named(path, rules, folder=folder) else None

    def _named(self, path: str, rules: Rules, *, folder: bool) -> bool:
        for base, spec in reversed(rules):  # the innermost decides
            if (named := spec.check_file(_below(path, base, folder)).include) is not None:
                return named
        return False


def _rules(lines: Sequence[str]) -> GitIgnoreSpec:
    """Read patterns; as git does, pass over lines that are none, and over those that are too much."""
    lines = [line for line in lines[:MOST_LINES] if len(line) <= LONGEST and not _is_costly(line)]
    try:
        return GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error):
        return GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))


def _is_costly(line: str) -> bool:
    return any(name.count("*") > MOST_STARS for name in line.replace("**", "").split("/"))


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True


def _below(path: str, base: str, folder: bool) -> str:
    relative = os.path.relpath(path, base).replace(os.sep, "/")
    return relative + "/" if folder else relative
