"""Web pages: the main text, without menus and footers."""

from __future__ import annotations

import contextlib
import html
import re
from typing import Any

SILENT = frozenset({"script", "style", "noscript", "template"})
"""Elements whose content no browser shows."""


def extract(data: bytes) -> dict[str, Any]:
    """Return the title and the main text of a page, which comes in UTF-8; both may be empty."""
    import trafilatura

    page = data.decode("utf-8", "replace").replace("\0", "\ufffd")
    title = text = ""
    with contextlib.suppress(Exception):  # whatever a parser cannot do; then the page without its tags is left
        if (tree := _tree(page)) is not None:
            found = trafilatura.bare_extraction(tree, include_comments=False, favor_recall=True, with_metadata=True)
            document: dict[str, Any] = {} if found is None else found if isinstance(found, dict) else found.as_dict()
            title, text = document.get("title") or "", document.get("text") or ""
    if not text.strip():
        with contextlib.suppress(Exception):
            text = trafilatura.html2txt(_tree(page)) or ""
    return {"title": title, "text": text if text.strip() else without_tags(page)}


def _tree(page: str) -> Any:
    """Parse a page, without what is not text; None where the parser gave up in the middle of it."""
    import lxml.html

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
