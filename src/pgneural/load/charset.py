"""The character encoding of a page: what its bytes begin with, or what it declares.

The names are those of the web (https://encoding.spec.whatwg.org/#names-and-labels): a page that says ISO-8859-1 means
Windows-1252, as every browser reads it. Python knows more encodings, some of which are no character sets at all.
"""

from __future__ import annotations

import codecs
import re

from pgneural.load.lines import HEAD, decoded, encoding_of
from pgneural.types import BadRecord

_MEANT = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "utf-16": "utf-8",  # what could be read so far was not UTF-16
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
}
_AS_THEY_ARE = {
    *("utf-8", "cp866", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "cp874", "gb18030", "big5hkscs", "euc_jp"),
    *("iso2022_jp", "cp932", "cp949", "utf-8-sig"),
    *(f"cp125{number}" for number in range(9)),
    *(f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
}
_LABELS = {"x-sjis": "cp932", "windows-31j": "cp932", "x-gbk": "gb18030", "x-euc-jp": "euc_jp", "x-cp1252": "cp1252",
           "x-cp1250": "cp1250", "x-cp1251": "cp1251", "x-mac-cyrillic": "mac-cyrillic", "macintosh": "mac-roman",
           "x-mac-roman": "mac-roman", "unicode-1-1-utf-8": "utf-8", "windows-949": "cp949", "windows-874": "cp874",
           "x-x-big5": "big5hkscs", "iso-8859-8-i": "iso8859-8"}  # fmt: skip

_IN_HEAD = (
    re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']\s*([^\s\"'>]{1,40})"),
    re.compile(rb"<meta\s[^>]{0,400}?charset\s*=\s*[\"']?\s*([^\s\"'/>;]{1,40})", re.IGNORECASE),
)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)

HEAD_BYTES = 4096
"""Bytes; the standard asks for 1024."""


def page(data: bytes, origin: str) -> str | BadRecord:
    """Decode a page, or say why that is not possible."""
    if unicode := encoding_of(data[:HEAD]):
        return decoded(data, unicode, origin)
    label = definition(data)
    if label is None:
        text = decoded(data, "utf-8", origin)
        if isinstance(text, BadRecord):
            problem = text.reason.removesuffix("; convert it")
            return BadRecord(origin, f"{problem}, and the page declares no other charset; declare it, or convert it")
        return text
    encoding = known(label)
    if encoding is None:
        return BadRecord(origin, f"the page declares the charset {label}, which is not known here; convert it to UTF-8")
    return decoded(data, encoding, origin)


def definition(data: bytes) -> str | None:
    """Return the charset that a page declares in its first bytes."""
    start = _COMMENT.sub(b"", data[:HEAD_BYTES])
    found = next((match for pattern in _IN_HEAD if (match := pattern.search(start))), None)
    return found[1].decode("ascii", "backslashreplace") if found else None


def known(label: str) -> str | None:
    """Return the encoding that a label of the web means, by its name in Python; None if none."""
    label = label.strip().lower()
    try:
        name = _LABELS.get(label) or codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    name = _MEANT.get(name, name)
    return name if name in _AS_THEY_ARE else None
