"""What a run did, whichever way its rows came in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from pgneural.types import BadRecord

REPORTED = 1000
"""How many bad records are kept in a `Report`; all are counted."""


@dataclass(repr=False)
class Report:
    """What was done: by `Collection.index`, by ``sync()``, by a worker for a space. What does not apply is 0.

    Attributes:
        rows: How many rows, or documents, are stored now that were not, or not as they are.
        inserted: How many documents are new.
        updated: How many have changed.
        unchanged: How many are as they were.
        rejected: How many records were bad.
        replaced: How many records were replaced by a later one of this run with the same id.
        pruned: How many documents were removed because their files, or their records in a file, are gone.
        chunks_encoded: How many chunks got a vector.
        chunks_reused: How many kept the one that they had, or got that of an equal chunk.
        failed: How often a row failed.
        encode_seconds: The time that encoding took, where workers did it.
        write_seconds: The time that storing took, where workers did it.
        bad: The first `REPORTED` bad records.
        skipped: How many files and links were left out, by reason.
        skipped_first: The first few of each.
    """

    rows: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    replaced: int = 0
    pruned: int = 0
    chunks_encoded: int = 0
    chunks_reused: int = 0
    failed: int = 0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    bad: list[BadRecord] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_first: dict[str, list[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = ((each.name, getattr(self, each.name)) for each in fields(self) if each.type != "float")
        return f"Report({', '.join(f'{name}={value!r}' for name, value in shown if value)})"

    @property
    def documents(self) -> int:
        """How many good records there were, those of one id in one batch counted once."""
        return self.inserted + self.updated + self.unchanged

    def reject(self, record: BadRecord) -> None:
        """Count a bad record."""
        self.add(Report(rejected=1, bad=[record]))
        del self.bad[REPORTED:]

    def add(self, other: Report) -> None:
        """Count what another run, or a part of this one, did; files that were left out are of one run."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bad += other.bad


COUNTED: Sequence[str] = [each.name for each in fields(Report) if each.type in ("int", "float")]
"""The attributes that are numbers."""

Progress = Callable[[Report], None]
"""Called after every batch with the report so far."""
