"""Transcripts in the user's cache folder: a recording is heard once on a machine by one model."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from pgneural.encoders.cache_folder import cache_folder, write_whole
from pgneural.transcribers.transcript import Line, Transcriber, Transcript
from pgneural.types import Samples, fingerprint


def hear(samples: Samples, transcriber: Transcriber) -> Transcript:
    """Return what a transcriber hears in a sound, by its samples; from the cache folder if it has heard it before."""
    name = fingerprint(transcriber.name, transcriber.revision, samples.tobytes()).hex()
    path = cache_folder() / "transcripts" / f"{name}.json"
    if (found := _read(path)) is not None:
        return found
    heard = transcriber.transcribe(samples)
    write_whole(path, _written(heard))
    return heard


def _read(path: Path) -> Transcript | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines = [Line(float(start), float(end), str(text)) for start, end, text in found["lines"]]
        return Transcript(lines, str(found["language"]))
    return None


def _written(transcript: Transcript) -> bytes:
    lines = [(float(line.start), float(line.end), line.text) for line in transcript.lines]
    return json.dumps({"language": transcript.language, "lines": lines}).encode()
