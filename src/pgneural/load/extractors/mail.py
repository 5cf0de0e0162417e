"""One mail, as mail programs save it."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime
from typing import Any

from . import told
from .html import without_tags


def extract(data: bytes) -> dict[str, Any]:
    """Return the subject as title, the text, and who wrote to whom when; attachments are named."""
    message = message_from_bytes(data, policy=policy.default)
    if not message.keys():
        return {"refused": "it is no mail: it has no headers; give it the suffix of what it is"}
    subject = told(lambda: str(message.get("Subject") or "")) or ""
    metadata = {
        "from": told(lambda: str(message.get("From") or "")),
        "to": told(lambda: str(message.get("To") or "")),
        "date": told(lambda: parsedate_to_datetime(str(message["Date"])).isoformat()),
    }
    names = [name for part in message.walk() if (name := told(part.get_filename))]
    attached = [f"Attachments: {', '.join(names)}"] if names else []
    text = "\n\n".join(filter(str.strip, [*_texts(message), *attached]))
    return {"title": subject, "text": text or subject, "metadata": metadata}


def _texts(part: Any) -> Iterator[str]:
    """Yield the texts of a mail and of those that it forwards; of alternatives the plainest."""
    if part.get_content_type() == "multipart/alternative":
        body = part.get_body(("plain", "html"))
        yield from [] if body is None else [_text(body)]
    elif part.is_multipart():
        if part.get_content_type() == "message/rfc822":
            yield told(lambda: str(part.get_payload(0).get("Subject") or "")) or ""
        for inner in part.get_payload():
            yield from _texts(inner)
    elif part.get_content_maintype() == "text" and not told(part.is_attachment) and not told(part.get_filename):
        yield _text(part)


def _text(body: Any) -> str:
    try:
        text = str(body.get_content())
    except (LookupError, UnicodeError):  # a charset that nobody knows
        text = body.get_payload(decode=True).decode("latin-1")
    return without_tags(text) if body.get_content_type() == "text/html" else text
