"""Which files a path stands for: links, loops, pipes, spellings."""

from __future__ import annotations

import gzip
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgneural import load
from pgneural.errors import UnreadableInput
from pgneural.load import walk
from pgneural.load.selection import HIDDEN
from pgneural.load.selection import IGNORED as NAMED_BY_RULES
from pgneural.types import BadRecord, Record

UNKNOWN = f"{walk.UNKNOWN_KIND} (.bin)"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three files, a loop, links inside and outside, and a pipe."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for path in ("root/one.md", "root/a/two.md", "root/a/b/three.md", "outside/secret.md"):
        (tmp_path / path).write_text(f"# {path}\n\ntext")
    (root / "a" / "b" / "loop").symlink_to(root)
    (root / "0-first").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "secret.md").symlink_to(tmp_path / "outside" / "secret.md")
    (root / "same.md").symlink_to(root / "one.md")
    (root / "broken.md").symlink_to(root / "nothing.md")
    os.mkfifo(root / "pipe.md")
    (root / "image.bin").write_bytes(b"\0")
    return root


def found(reading: load.Reading, root: Path) -> list[str]:
    records = list(reading)
    assert all(isinstance(record, Record) for record in records), records
    return sorted(os.path.relpath(record.external_id, root) for record in records if isinstance(record, Record))


def test_links_are_left_out_and_counted(tree: Path) -> None:
    reading = load.read([tree])
    assert found(reading, tree) == ["a/b/three.md", "a/two.md", "one.md"]
    assert reading.left_out.counts == {walk.LINK: 6, walk.NOT_A_FILE: 1, UNKNOWN: 1}
    assert reading.left_out.first[walk.NOT_A_FILE] == [str(tree / "pipe.md")]
    assert len(reading.left_out.first[walk.LINK]) == walk.NAMED


def test_links_are_followed_if_asked_each_file_once_and_loops_end(tree: Path) -> None:
    reading = load.read([tree], follow_links=True)
    once = found(reading, tree)
    assert once[:3] == ["a/b/three.md", "a/two.md", "one.md"]
    assert once[3:] in (["secret.md"], ["out/secret.md"])
    assert reading.left_out.counts == {walk.BROKEN: 1, walk.NOT_A_FILE: 1, UNKNOWN: 1}


@pytest.mark.parametrize("follow", [False, True])
def test_patterns_end_in_loops(tree: Path, follow: bool) -> None:
    reading = load.read([tree / "**" / "*.md"], follow_links=follow)
    assert found(reading, tree)[:3] == ["a/b/three.md", "a/two.md", "one.md"]
    assert reading.left_out.counts[walk.LINK] == (0 if follow else 6)
    assert UNKNOWN not in reading.left_out.counts


def test_patterns_find_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("x/a.md", "x/y/b.md", "x/.hidden/c.md", "x/.d.md", "x/[1].md"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("text")
    for pattern, expected in {
        "x/*.md": ["[1].md", "a.md"],
        "x/**": ["[1].md", "a.md", "y/b.md"],
        "**/b.md": ["y/b.md"],
        "x/.*/*.md": [".hidden/c.md"],
        "x/[1].md": ["[1].md"],
        "x/?.md": ["a.md"],
        "*/y/*": ["y/b.md"],
        "x/**/**/**/*.md": ["[1].md", "a.md", "y/b.md"],
    }.items():
        assert found(load.read([pattern]), tmp_path / "x") == expected, pattern
        if pattern != "x/[1].md":
            here = [str(path.relative_to(tmp_path / "x")) for path in (tmp_path / "x").rglob("*.md")]
            covered = [at for at in here if walk.covers(walk.normal(pattern), str(tmp_path / "x" / at))]
            assert sorted(covered) == expected, pattern


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (bad,) = load.read([tmp_path / "pipe.txt"])
    assert str(bad).endswith("it is a named pipe, not a file; give a file, or - for standard input")
    (device,) = load.read(["/dev/zero"], format="text")
    assert isinstance(device, BadRecord)
    folder = Path(tempfile.mkdtemp())  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s.txt"))
        (bad,) = load.read([folder / "s.txt"])
        assert isinstance(bad, BadRecord)
        with pytest.raises(UnreadableInput, match="1 not regular files"):
            list(load.read([folder]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "locked").mkdir(mode=0)
    reading = load.read([tmp_path])
    assert len(list(reading)) == 1
    assert reading.left_out.counts == {walk.UNREADABLE: 1}


def test_a_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.bin")).write_bytes(b"")
    reading = load.read([tmp_path])
    assert len(list(reading)) == 1
    assert reading.left_out.first[UNKNOWN][0].encode().endswith(b"/\\xff.bin")


def test_the_same_path_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    assert len(list(load.read([tmp_path / "a.md", tmp_path, tmp_path, tmp_path / "*.md"]))) == 1


@given(steps=st.lists(st.sampled_from([".", "..", "small", "", "other"]), max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_spelling_gives_one_id(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "small").mkdir()
        (root / "other").mkdir()
        (root / "small" / "a.md").write_text("text")
        spelled = str(root / "small")
        for step in steps:
            longer = f"{spelled}/{step}"
            spelled = longer if os.path.isdir(longer) and os.path.realpath(longer).startswith(str(root)) else spelled
        here = os.path.relpath(root / "small", os.path.realpath(spelled))
        for path in (f"{spelled}/{here}", f"{spelled}/{here}/a.md", f"//{spelled}/{here}", f"{spelled}/{here}/*.md"):
            (record,) = load.read([path])
            assert isinstance(record, Record)
            assert (record.external_id, record.uri) == (f"{root}/small/a.md", f"file://{root}/small/a.md")


def test_up_out_of_a_link_is_where_the_system_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "a.md").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    monkeypatch.chdir(tmp_path)
    for path in ("link/../a.md", "link/..", "real/inner/../a.md"):
        (record,) = load.read([path])
        assert isinstance(record, Record)
        assert record.external_id == str(tmp_path / "real" / "a.md")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder as people have it: hidden files, build products, rules within rules."""
    files = {
        ".gitignore": "*.log\nbuild/\n/top.txt\n",
        ".env": "SECRET=1",
        ".git/config": "[core]",
        "a.txt": "text",
        "a.log": "text",
        "top.txt": "text",
        "build/b.txt": "text",
        "src/.gitignore": "!keep.log\n*.tmp\n",
        "src/keep.log": "text",
        "src/other.log": "text",
        "src/c.tmp": "text",
        "src/top.txt": "text",
        "src/code.py": "x = 1",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


ALL = ["a.txt", "src/code.py", "src/keep.log", "src/top.txt"]
IGNORED = ["a.log", "build/b.txt", "src/c.tmp", "src/other.log", "top.txt"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (load.Selection(), ALL),
        (load.Selection(ignored=True), sorted(ALL + IGNORED)),
        (load.Selection(hidden=True), sorted([*ALL, ".env", ".git/config", ".gitignore", "src/.gitignore"])),
        (load.Selection(include=["*.py", "/a.*"]), ["a.txt", "src/code.py"]),
        (load.Selection(exclude=["src/"]), ["a.txt"]),
        (load.Selection(include=["*.txt"], exclude=["top.*"]), ["a.txt"]),
    ],
)
def test_a_folder_is_read_as_people_mean_it(project: Path, selection: load.Selection, expected: list[str]) -> None:
    assert found(load.read([project], selection=selection), project) == expected


def test_what_is_not_selected_is_counted_and_a_named_file_is_always_read(project: Path) -> None:
    reading = load.read([project])
    list(reading)
    assert reading.left_out.counts == {HIDDEN: 4, NAMED_BY_RULES: 5}
    named = [project / ".env", project / "a.log"]
    assert found(load.read(named), project) == [".env", "a.log"]


def test_a_strange_gitignore_stops_nothing(tmp_path: Path) -> None:
    for name in ("pipe", "folder", "device", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("text")
        (tmp_path / name / "b.log").write_text("text")
    os.mkfifo(tmp_path / "pipe" / ".gitignore")
    (tmp_path / "folder" / ".gitignore").mkdir()
    (tmp_path / "device" / ".gitignore").symlink_to("/dev/zero")
    (tmp_path / "broken" / ".gitignore").write_bytes(b"!\n\\\n[\n\xff\xfe\n*.log\n")
    records = found(load.read([tmp_path]), tmp_path)
    assert [name for name in records if name.startswith("broken")] == ["broken/a.txt"]
    assert len(records) == 7
    with pytest.raises(UnreadableInput, match=r"'!' is no pattern of \.gitignore; write one like \*\.md"):
        load.Selection(exclude=["!"])


def test_rules_that_are_too_much_are_passed_over(tmp_path: Path) -> None:
    rules = ["*a*a*a*a*a*a*a*a*a*a*b", "[z-a]", "x" * 100_000, "*.log"]
    (tmp_path / ".gitignore").write_text("\n".join([*rules, *(f"n{n}" for n in range(50_000))]))
    (tmp_path / ("a" * 60 + ".txt")).write_text("text")
    (tmp_path / "b.log").write_text("text")
    started = time.monotonic()
    assert len(found(load.read([tmp_path]), tmp_path)) == 1
    assert time.monotonic() - started < 10
    with pytest.raises(UnreadableInput, match="is no pattern"):
        load.Selection(include=["[z-a]"])


def test_rules_hold_for_patterns_and_from_the_whole_repository(tmp_path: Path) -> None:
    for name in (".git/config", "src/a.txt", "src/build/o.txt", "src/a.key", "build/p.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / ".gitignore").write_text("build/\n*.key\n")
    for path in (tmp_path / "src", tmp_path / "src" / "**", tmp_path / "src" / "*"):
        assert found(load.read([path]), tmp_path) == ["src/a.txt"], path
    assert found(load.read([tmp_path / "build"]), tmp_path) == ["build/p.txt"]  # it is named
    excluding = load.Selection(exclude=["*.txt"], ignored=True)
    assert found(load.read([tmp_path / "src" / "*"], selection=excluding), tmp_path) == ["src/a.key"]


def test_files_that_nobody_can_look_into_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.dat.gz").write_bytes(gzip.compress(b"text")[:10] + b"\xff" * 50)
    (tmp_path / "a.txt").write_text("text")
    os.utime(tmp_path / "a.txt", (0, 10**12))
    assert found(load.read([tmp_path]), tmp_path) == ["a.txt"]
