"""Transcripts that are kept in the user's cache folder: a recording is heard once on a machine by one model."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from pgneural.encoders.cache_folder import cache_folder
from pgneural.transcribers.transcript import Line, Transcriber, Transcript
from pgneural.types import Samples, fingerprint


def kept(samples: Samples, transcriber: Transcriber) -> Transcript:
    """Return what a transcriber hears in a sound, from the cache folder if it has heard it before."""
    name = fingerprint(transcriber.name, transcriber.revision, samples.tobytes()).hex()
    path = cache_folder() / "transcripts" / f"{name}.json"
    if (found := _read(path)) is not None:
        return found
    heard = transcriber.transcribe(samples)
    with contextlib.suppress(OSError):
        _write(path, heard)
    return heard


def _read(path: Path) -> Transcript | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines = [Line(float(start), float(end), str(text)) for start, end, text in found["lines"]]
        return Transcript(lines, str(found["language"]))
    return None


def _write(path: Path, transcript: Transcript) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # what was spoken is nobody else's business
    lines = [(float(line.start), float(line.end), line.text) for line in transcript.lines]
    written = json.dumps({"language": transcript.language, "lines": lines})
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        try:
            file.write(written)
            file.flush()
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
