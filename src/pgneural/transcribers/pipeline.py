"""Speech recognition models of Transformers, by its pipeline: Whisper, wav2vec 2.0 and others, by folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from pgneural.encoders.loading import load, revision_of
from pgneural.extras import needed
from pgneural.load.sound import waves_of
from pgneural.transcribers.transcript import Transcript
from pgneural.types import SAMPLING_RATE, Samples

SECONDS = 30
"""Longer sounds are heard in pieces of so many seconds."""

SHORTEST = SAMPLING_RATE // 2
"""Samples: the convolutions of some models take no less."""


class PipelineTranscriber:
    """A model of the task ``automatic-speech-recognition``.

    Args:
        model: Its folder.

    Raises:
        MissingExtra: The packages of extra ``local`` are not installed.
        EncoderUnavailable: The model cannot be loaded.
    """

    def __init__(self, model: str | Path) -> None:
        self.name, self.revision = str(model), revision_of(model)
        with needed(f"transcriber {self.name!r}", "local"):
            from transformers import pipeline

        def made(folder: str, **_: Any) -> Any:
            return pipeline("automatic-speech-recognition", model=folder, chunk_length_s=SECONDS, device="cpu")

        self._pipeline: Any = load(made, model, None, False)
        self._lock = threading.Lock()
        self._whisper = self._pipeline.type == "seq2seq_whisper"

    def transcribe(self, samples: Samples) -> Transcript:
        """Return what is spoken in a sound."""
        waves = waves_of(samples)
        waves = np.pad(waves, (0, max(0, SHORTEST - len(waves))))
        with self._lock:
            heard = self._pipeline(
                {"raw": waves, "sampling_rate": SAMPLING_RATE}, return_timestamps=self._whisper or "word"
            )
        duration = len(samples) / SAMPLING_RATE
        pieces = [(*each["timestamp"], each["text"]) for each in heard["chunks"]]
        timed = [(start or 0.0, duration if end is None else end, text) for start, end, text in pieces]
        return Transcript.of(timed if self._whisper else _in_lines(timed))


PAUSE_SECONDS = 0.5
"""Words that are so far apart are of two lines."""


def _in_lines(pieces: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Join words between which there is no pause."""
    lines: list[tuple[float, float, str]] = []
    for start, end, text in pieces:
        if lines and start - lines[-1][1] < PAUSE_SECONDS:
            begin, _, before = lines[-1]
            lines[-1] = (begin, end, f"{before} {text}")
        else:
            lines.append((start, end, text))
    return lines
