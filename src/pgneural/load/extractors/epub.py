"""Books: the chapters of an EPUB in their order."""

from __future__ import annotations

import io
import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

BLOCKS = frozenset({"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "tr", "br", "blockquote", "pre", "section"})


def extract(data: bytes) -> dict[str, Any]:
    """Return title, text with a form feed between chapters, and who wrote it."""
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        if "META-INF/encryption.xml" in book.namelist() and b"EncryptedData" in book.read("META-INF/encryption.xml"):
            return {"refused": "it is protected against copying; give a copy that is not"}
        container = _parsed(book.read("META-INF/container.xml"))
        path = container.xpath("string(//*[local-name()='rootfile']/@full-path)")
        package = _parsed(book.read(path))
        chapters = [_chapter(book.read(name)) for name in _spine(package, posixpath.dirname(path))]
    title = package.xpath("string(//*[local-name()='title'])").strip()
    author = package.xpath("string(//*[local-name()='creator'])").strip()
    language = package.xpath("string(//*[local-name()='language'])").strip()
    metadata = {"author": author or None, "language": language or None, "pages": len(chapters)}
    return {"title": title, "text": "\f".join(chapters), "metadata": metadata}


def _parsed(data: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _spine(package: Any, folder: str) -> list[str]:
    """Return the files of the chapters."""
    files = {item.get("id"): item.get("href") for item in package.xpath("//*[local-name()='item']")}
    order = [files.get(item.get("idref")) for item in package.xpath("//*[local-name()='itemref']")]
    return [posixpath.normpath(posixpath.join(folder, unquote(name.partition("#")[0]))) for name in order if name]


def _chapter(data: bytes) -> str:
    import lxml.html

    tree = lxml.html.document_fromstring(data or b"<p/>", parser=lxml.html.HTMLParser(encoding="utf-8"))
    body = tree.find("body")
    for element in list(tree.iter("script", "style")):
        element.drop_tree()
    for element in tree.iter(*BLOCKS):
        element.tail = "\n\n" + (element.tail or "")
    lines = (" ".join(line.split()) for line in (tree if body is None else body).text_content().split("\n\n"))
    return "\n\n".join(filter(None, lines))
