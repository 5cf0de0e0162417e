"""Books: the chapters of an EPUB in their order."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

PARTING = frozenset(
    {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr", "td", "th"}
    | {"caption", "br", "hr", "blockquote", "pre", "section", "article", "aside", "header", "footer", "nav", "figure"}
    | {"figcaption", "body"}
)
"""Elements that part words."""

SILENT = frozenset({"script", "style", "head", "template"})


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with a form feed between chapters, and who wrote it."""
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        names = set(book.namelist())
        container = _parsed(book.read("META-INF/container.xml"))
        path = container.xpath("string(//*[local-name()='rootfile']/@full-path)")
        package = _parsed(book.read(path))
        spine = [name for name in _spine(package, posixpath.dirname(path)) if name in names]
        if _encrypted(book, names) & set(spine):
            return {"refused": "it is protected against copying; give a copy that is not"}
        chapters = [_chapter(book.read(name)) for name in spine]
    about = {
        name: package.xpath(f"string(//*[local-name()='{name}'])").strip() for name in ("title", "creator", "language")
    }
    metadata = {"author": about["creator"], "language": about["language"], "pages": len(chapters)}
    return {"title": about["title"], "text": "\f".join(chapters), "metadata": metadata}


def _parsed(data: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _spine(package: Any, folder: str) -> list[str]:
    """Return the files of the chapters."""
    files = {item.get("id"): item.get("href") for item in package.xpath("//*[local-name()='item']")}
    order = [files.get(item.get("idref")) for item in package.xpath("//*[local-name()='itemref']")]
    return [posixpath.normpath(posixpath.join(folder, unquote(name.partition("#")[0]))) for name in order if name]


def _encrypted(book: zipfile.ZipFile, names: set[str]) -> set[str]:
    """Return the files that are encrypted: of many books, fonts alone."""
    if "META-INF/encryption.xml" not in names:
        return set()
    return set(map(unquote, _parsed(book.read("META-INF/encryption.xml")).xpath("//@URI")))


def _chapter(data: bytes) -> str:
    parts = "".join(_parts(_tree(data))).split("\n\n")
    return "\n\n".join(filter(None, (" ".join(part.split()) for part in parts)))


def _tree(data: bytes) -> Any:
    """Parse a chapter: as XML, which tells its encoding, or if it is none as a web page."""
    import lxml.html
    from lxml import etree

    try:
        return _parsed(data)
    except etree.XMLSyntaxError:
        return lxml.html.document_fromstring(data.strip() or b"<p></p>")


def _parts(tree: Any) -> Iterator[str]:
    from lxml import etree

    walk = etree.iterwalk(tree, events=("start", "end", "comment", "pi"))
    for event, element in walk:
        name = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
        break_ = "\n\n" if name in PARTING else ""
        if event == "start":
            if name in SILENT:
                walk.skip_subtree()
            else:
                yield break_ + (element.text or "")
        else:
            yield break_ + (element.tail or "")
