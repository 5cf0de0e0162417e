"""Calendars: what happens when and where."""

from __future__ import annotations

from typing import Any

from . import told

FIELDS = ("SUMMARY", "DTSTART", "DTEND", "LOCATION", "ORGANIZER", "DESCRIPTION")
COMPONENTS = ("VEVENT", "VTODO", "VJOURNAL")


def extract(data: bytes) -> dict[str, Any]:
    """Return the name of the calendar and its entries, parted by an empty line."""
    import icalendar

    calendars = icalendar.Calendar.from_ical(data, multiple=True)
    entries = [_entry(part) for calendar in calendars for kind in COMPONENTS for part in calendar.walk(kind)]
    titles = [str(calendar.get("X-WR-CALNAME", "")) for calendar in calendars]
    return {"title": ", ".join(filter(None, titles)), "text": "\n\n".join(entries)}


def _entry(part: Any) -> str:
    return "\n".join(filter(None, (_value(part[name]) for name in FIELDS if name in part)))


def _value(value: Any) -> str:
    moment = told(lambda: getattr(value, "dt", value))
    if moment is None:
        return ""
    return str(moment.isoformat(sep=" ") if hasattr(moment, "hour") else moment)
