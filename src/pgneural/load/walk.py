"""Which files a path stands for: a file, a folder with all below it, or a pattern.

Symbolic links that are met on the way are left out unless asked for; a path that is given itself is followed. Where
they are followed, a file is read once and under its own path if that is reached, too, and a folder is entered once,
so that loops end. Pipes and devices are never opened: some block for ever.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pgneural.load.selection import HIDDEN, IGNORED, Rules, Selection

LINK = "symbolic links (--follow-links reads them)"
BROKEN = "links that lead nowhere"
NOT_A_FILE = "not regular files"
UNREADABLE = "unreadable"
UNKNOWN_KIND = "of an unknown kind"

NAMED = 3
"""How many of each kind are named."""

_MAGIC = re.compile(r"[*?\[]")


class LeftOut:
    """What a run did not read, counted by reason; the first few are named."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[str]] = {}
        self._unwanted: set[int] = set()

    def add(self, reason: str, path: str | os.PathLike[str]) -> None:
        """Count one."""
        self.counts[reason] += 1
        if reason in (HIDDEN, IGNORED):
            self._unwanted.add(hash(normal(path)))
        if self.counts[reason] <= NAMED:
            self.first.setdefault(reason, []).append(shown(path))

    def unwanted(self, path: str) -> bool:
        """Whether a file, by its normal path, or a folder above it was left out as hidden or ignored."""
        return bool(self._unwanted) and any(hash(str(each)) in self._unwanted for each in (path, *Path(path).parents))


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be printed and stored, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Walk:
    """Finds files, each once in a run.

    Args:
        follow_links: Whether to follow symbolic links.
        left_out: Where what is not read is counted.
        selection: What of the folders is read.
    """

    def __init__(self, follow_links: bool, left_out: LeftOut, selection: Selection | None = None) -> None:
        self._follow, self._left_out = follow_links, left_out
        self._selection = selection or Selection()
        self._files: set[int] = set()  # hashes of real paths: a run may have millions
        self._folders: set[str] = set()
        self._links: list[str] = []
        self._rules: dict[str, Rules] = {}
        self.repeats = 0  # files and folders that were met once more

    def file(self, path: str) -> Iterator[Path]:
        """Yield a file that is given by its path."""
        if self._first_time(os.path.realpath(path)):
            yield Path(path)

    def folder(self, path: str) -> Iterator[Path]:
        """Yield the files below a folder, those reached by links last."""
        yield from self._below(path)
        while self._links:
            yield from self._linked(self._links.pop(0))

    def pattern(self, pattern: str) -> Iterator[Path]:
        """Yield the files that a pattern matches: ``*``, ``?`` and ``[…]`` in a name, ``**`` for any folders."""
        parts, self._rules = _parts(pattern), {}
        base = os.path.join("", *itertools.takewhile(lambda part: not _MAGIC.search(part), parts))
        for path in self._matching("", parts):
            yield from self._admitted(path, base)
        while self._links:
            yield from self._linked(self._links.pop(0), files_only=True)

    def _first_time(self, real: str) -> bool:
        known = hash(real) in self._files
        self.repeats += known
        self._files.add(hash(real))
        return not known

    def _below(self, root: str) -> Iterator[Path]:
        waiting: list[tuple[str, Rules]] = [(root, self._selection.around(root))]
        while waiting:
            folder, rules = waiting.pop()
            real = os.path.realpath(folder)
            if real in self._folders:
                self.repeats += 1
                continue
            self._folders.add(real)
            inner, rules = [], self._selection.rules(folder, rules)
            for entry in self._entries(folder):
                is_folder = entry.is_dir(follow_symlinks=False)
                if reason := self._selection.reason(entry.path, root, rules, folder=is_folder):
                    self._left_out.add(reason, entry.path)
                elif entry.is_symlink():
                    self._link(entry.path)
                elif is_folder:
                    inner.append((entry.path, rules))
                elif not entry.is_file(follow_symlinks=False):
                    self._left_out.add(NOT_A_FILE, entry.path)
                elif self._first_time(os.path.join(real, entry.name)):
                    yield Path(entry.path)
            waiting.extend(reversed(inner))

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder or ".") as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError:
            self._left_out.add(UNREADABLE, folder)
            return []

    def _link(self, path: str) -> None:
        if self._follow:
            self._links.append(path)
        else:
            self._left_out.add(LINK, path)

    def _linked(self, path: str, *, files_only: bool = False) -> Iterator[Path]:
        """Yield what a link leads to and nothing else has led to yet."""
        real = os.path.realpath(path)
        try:
            mode = os.stat(real).st_mode
        except OSError:
            self._left_out.add(BROKEN, path)
            return
        if stat.S_ISDIR(mode):
            if not files_only:
                yield from self._below(path)
        elif not stat.S_ISREG(mode):
            self._left_out.add(NOT_A_FILE, path)
        elif self._first_time(real):
            yield Path(path)

    def _admitted(self, path: str, base: str) -> Iterator[Path]:
        mode = os.lstat(path).st_mode
        rules = self._rules_of(os.path.dirname(path), base)
        if reason := self._selection.unselected(path, base, rules, folder=stat.S_ISDIR(mode)):
            self._left_out.add(reason, path)
        elif stat.S_ISLNK(mode):
            self._link(path)
        elif stat.S_ISREG(mode):
            if self._first_time(os.path.realpath(path)):
                yield Path(path)
        elif not stat.S_ISDIR(mode):
            self._left_out.add(NOT_A_FILE, path)

    def _rules_of(self, folder: str, base: str) -> Rules:
        """Return what holds in a folder that a pattern has reached, from where the pattern begins."""
        if folder not in self._rules:
            outer = self._selection.around(base) if folder == base else self._rules_of(os.path.dirname(folder), base)
            self._rules[folder] = self._selection.rules(folder, outer)
        return self._rules[folder]

    def _matching(self, folder: str, parts: list[str]) -> Iterator[str]:
        """Yield what matches the parts of a pattern below a folder, also folders and links."""
        part, rest = parts[0], parts[1:]
        if part == "**":
            for inner in self._folders_below(folder):
                yield from self._matching(inner, rest or ["*"])
        elif not _MAGIC.search(part):
            path = os.path.join(folder, part)
            if not rest and os.path.lexists(path):
                yield path
            elif rest and os.path.isdir(path):
                yield from self._matching(path, rest)
        else:
            for entry in sorted(self._entries(folder), key=os.DirEntry.is_symlink):  # what is there itself comes first
                if not _matches(entry.name, part):
                    continue
                if not rest:
                    yield os.path.join(folder, entry.name)
                elif self._enters(entry, folder):
                    yield from self._matching(os.path.join(folder, entry.name), rest)

    def _folders_below(self, folder: str) -> Iterator[str]:
        """Yield a folder and all below it that are not hidden, each once."""
        waiting, linked, entered = [folder], list[str](), set()
        while waiting or linked:
            folder = waiting.pop(0) if waiting else linked.pop(0)
            real = os.path.realpath(folder or ".")
            if real in entered:
                continue
            entered.add(real)
            yield folder
            for entry in self._entries(folder):
                if not entry.name.startswith(".") and self._enters(entry, folder):
                    (linked if entry.is_symlink() else waiting).append(os.path.join(folder, entry.name))

    def _enters(self, entry: os.DirEntry[str], folder: str) -> bool:
        if not entry.is_dir():
            return False
        if entry.is_symlink() and not self._follow:
            self._left_out.add(LINK, os.path.join(folder, entry.name))
            return False
        return True


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern, unless there is a file of that name."""
    return bool(_MAGIC.search(path))


def normal(path: str | os.PathLike[str]) -> str:
    """Return the absolute path without ``.`` and ``..``: one spelling for each way to name a file.

    Symbolic links stay what they are, but for those that ``..`` steps out of.
    """
    named = os.fspath(path)
    full = os.path.abspath(named)
    if full.startswith("//") and os.sep == "/":
        full = "/" + full.lstrip("/")
    if ".." in Path(named).parts and os.path.exists(named) and not _same(full, named):
        folder, name = os.path.split(named.rstrip(os.sep))
        return os.path.realpath(named) if name == ".." else os.path.join(os.path.realpath(folder), name)
    return full


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def covers(pattern: str, path: str) -> bool:
    """Whether a pattern in its normal form matches a normal path, as `Walk.pattern` would find it."""
    parts = _parts(pattern)
    parts += ["*"] if parts[-1] == "**" else []
    reached = _beyond({0}, parts)
    for name in Path(path).parts:
        following = set()
        for at in reached - {len(parts)}:
            if parts[at] == "**":
                following |= set() if name.startswith(".") else {at}
            elif parts[at] == name or _matches(name, parts[at]):
                following.add(at + 1)
        reached = _beyond(following, parts)
    return len(parts) in reached


def _beyond(reached: set[int], parts: list[str]) -> set[int]:
    """Add the places behind each ``**``, which may stand for no folder."""
    return reached | {at + 1 for at in reached if at < len(parts) and parts[at] == "**"}


def _matches(name: str, part: str) -> bool:
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))


def _parts(pattern: str) -> list[str]:
    """Split a pattern into names; one that is absolute begins with the root."""
    parts = Path(pattern).parts
    return [part for at, part in enumerate(parts) if part != "**" or parts[at - 1 : at] != ("**",)]
