"""A program of its own that turns pages into text: whoever sends it a page can end it.

A page is data from outside, and the parsers are big and partly written in C: one page can take hours, all memory,
or the process with it. `pgneural.load.pages` starts this file and says what is then told to the user.

It reads pages from standard input and answers on standard output: a length of 8 bytes and that many bytes, of UTF-8
one way and of JSON the other way. It ends when standard input does, after `PAGES`, or when nothing came for a while.
Nothing of pgneural is imported here, so that it starts within a fraction of a second.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import select
import signal
import struct
import sys
from typing import Any, BinaryIO

PAGES = 1000
"""After so many another process takes over: what parsers keep for later adds up."""

IDLE_SECONDS = 60

SILENT = frozenset({"script", "style", "noscript", "template"})
"""Elements whose content no browser shows."""

LENGTH = struct.Struct(">Q")


def main(memory: int, seconds: int) -> None:
    """Answer until nobody asks any more."""
    requests, answers = _private_pipes()
    _limit(memory)
    import trafilatura

    answers.write(b"+")
    for _ in range(PAGES):
        if os.name != "nt" and not select.select([requests], [], [], IDLE_SECONDS)[0]:
            return
        header = _read(requests, LENGTH.size)
        if len(header) < LENGTH.size:
            return
        page = _read(requests, LENGTH.unpack(header)[0]).decode("utf-8", "replace")
        _alarm(seconds)
        try:
            answer: dict[str, str] = dict(zip(("title", "text"), extract(trafilatura, page), strict=True))
        except MemoryError:
            answer = {"error": "memory"}
        _alarm(0)
        encoded = json.dumps(answer).encode()
        _write(answers, LENGTH.pack(len(encoded)) + encoded)
        if "error" in answer:
            return


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


def extract(trafilatura: Any, page: str) -> tuple[str, str]:
    """Return the title and the main text of a page, without menus and footers; both may be empty."""
    page = page.replace("\0", "\ufffd")
    title = text = ""
    with contextlib.suppress(Exception):  # whatever a parser cannot do; then the page without its tags is left
        if (tree := _tree(page)) is not None:
            found = trafilatura.bare_extraction(tree, include_comments=False, favor_recall=True, with_metadata=True)
            document: dict[str, Any] = {} if found is None else found if isinstance(found, dict) else found.as_dict()
            title, text = document.get("title") or "", document.get("text") or ""
    if not text.strip():
        with contextlib.suppress(Exception):
            text = trafilatura.html2txt(_tree(page)) or ""
    return title, text if text.strip() else without_tags(page)


def _tree(page: str) -> Any:
    """Parse a page, without what is not text; None where the parser gave up in the middle of it."""
    import lxml.html  # type: ignore[import-untyped]

    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, collect_ids=False, huge_tree=True
    )
    declaration = re.match(r"\s*<\?xml[^>]*>", page)
    tree = lxml.html.document_fromstring(page[declaration.end() if declaration else 0 :].encode(), parser=parser)
    if len(parser.error_log.filter_from_fatals()):  # the rest of the page would be missing
        return None
    for element in list(tree.iter()):
        if isinstance(element.tag, str) and element.tag.rpartition(":")[2].lower() in SILENT:
            if element.getparent() is None:
                return None
            element.drop_tree()
    return tree


_MARK = re.compile(r"<(?:!--|[!?/a-zA-Z])")
_NAME = re.compile(r"/?([a-zA-Z][^\s/>]{0,40})")


def without_tags(page: str) -> str:
    """Return a page without its tags, comments and silent elements, in time proportional to its length."""
    parts, at = [], 0
    lowered = page.lower() if len(page.lower()) == len(page) else page
    while found := _MARK.search(page, at):
        parts.append(page[at : found.start()])
        comment = found[0] == "<!--"
        end = page.find("-->" if comment else ">", found.end())
        if end < 0:  # it is open to the end
            at = len(page)
            break
        at = end + (3 if comment else 1)
        name = _NAME.match(lowered, found.start() + 1)
        if name and name[1] in SILENT | {"title"} and not name[0].startswith("/"):
            closing = lowered.find(f"</{name[1]}", at)
            at = closing if closing >= 0 else len(page)
    parts.append(page[at:])
    with contextlib.suppress(ValueError):  # a reference to a character of thousands of digits
        return re.sub(r"[^\S\n]+", " ", html.unescape(" ".join(parts))).strip()
    return " ".join(parts).strip()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
