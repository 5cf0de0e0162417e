"""One mail, as mail programs save it."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime
from typing import Any

from .html import without_tags


def extract(data: bytes) -> dict[str, Any]:
    """Return the subject as title, the text, and who wrote to whom when; attachments are named."""
    message = message_from_bytes(data, policy=policy.default)
    if not message.keys():
        return {"refused": "it is no mail: it has no headers; give it the suffix of what it is"}
    body = message.get_body(("plain", "html"))
    text = _text(body) if body is not None else ""
    names = [name for part in message.walk() if (name := part.get_filename())]
    attached = f"\n\nAttachments: {', '.join(names)}" if names else ""
    metadata = {"from": message.get("From"), "to": message.get("To"), "date": _date(message.get("Date"))}
    metadata = {name: value and str(value) for name, value in metadata.items()}
    return {"title": str(message.get("Subject", "")), "text": text + attached, "metadata": metadata}


def _text(body: Any) -> str:
    try:
        text = str(body.get_content())
    except (LookupError, UnicodeError):  # a charset that nobody knows
        text = body.get_payload(decode=True).decode("latin-1")
    return without_tags(text) if body.get_content_type() == "text/html" else text


def _date(written: Any) -> str | None:
    try:
        return parsedate_to_datetime(str(written)).isoformat() if written else None
    except ValueError:
        return None
