"""What a transcriber is, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pgneural.types import Samples


class Line(NamedTuple):
    """What was spoken without a pause.

    Attributes:
        start: When it begins, in seconds.
        end: When it ends.
        text: In one line.
    """

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was spoken.

    Attributes:
        lines: In order; none where nothing was.
        language: By its code, for example ``en``; empty where it is not known.
    """

    lines: Sequence[Line]
    language: str = ""

    @classmethod
    def of(cls, lines: Sequence[tuple[float, float, str]], language: str = "") -> Transcript:
        """Make one of what a model heard: each line without breaks, those without words left out."""
        timed = ((max(float(start), 0.0), float(end), " ".join(text.split())) for start, end, text in lines)
        return cls([Line(round(a, 2), round(max(a, b), 2), text) for a, b, text in timed if text], language)

    @property
    def text(self) -> str:
        """All of it, a line each."""
        return "\n".join(line.text for line in self.lines)

    @property
    def seconds(self) -> list[list[float]]:
        """When each line was spoken, from and to."""
        return [[line.start, line.end] for line in self.lines]


class Transcriber(Protocol):
    """What turns speech into text.

    ``revision`` changes whenever the same sound would give another text.
    """

    @property
    def name(self) -> str:
        """Its name, or the folder of its model."""

    @property
    def revision(self) -> str:
        """Identifies the weights and everything else that decides the text."""

    def transcribe(self, samples: Samples) -> Transcript:
        """Return what is spoken in a sound: int16, shape (n,), `pgneural.types.SAMPLING_RATE` a second."""
