"""From speech to text: a name to a transcriber, which a process loads once, and what it hears in a sound.

A name is looked up among the entry points of group ``pgneural.transcribers`` (ours and third parties'), then as a
Whisper model of CTranslate2, or any speech recognition model of Transformers: a folder, or a name on the model hub.
What was heard once on a machine is kept in the user's cache folder, for it takes long.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pgneural.encoders.registry import MODELS, key_of
from pgneural.errors import InvalidQuery, UnknownEncoder, UnpermittedModel
from pgneural.load import read_question
from pgneural.transcribers.transcript import Line, Transcriber, Transcript
from pgneural.transcribers.transcript_cache import hear
from pgneural.types import Media, Modality

__all__ = ["DEFAULT", "Line", "Transcriber", "Transcript", "available", "get", "hear", "transcribe"]

GROUP = "pgneural.transcribers"
DEFAULT = "whisper-tiny.en"


def transcribe(sound: Any, transcriber: str | Path | Transcriber = "") -> Transcript:
    """Return what is spoken in a sound.

    Args:
        sound: The `pathlib.Path` of a file, its bytes, or ``{"array": …, "sampling_rate": …}``.
        transcriber: Its name, the folder of a model or its name on the model hub, or a `Transcriber`.

    Raises:
        InvalidQuery: It is no sound.
        MissingExtra: What reads it is not installed.
        UnknownEncoder: There is no such transcriber.

    Example:
        >>> transcribe(Path("order.wav")).text
        'Can I have a large cappuccino?'
    """
    read = read_question(sound)
    if not isinstance(read, Media) or read.modality is not Modality.AUDIO:
        found = read.modality if isinstance(read, Media) else type(read).__name__
        raise InvalidQuery(f"what is to be transcribed is {found}; give the file of a sound, or its samples")
    return hear(read.data, get(transcriber))


def get(name: str | Path | Transcriber = "") -> Transcriber:
    """Return the transcriber of a name; a process has one, and its threads share it.

    Raises:
        UnknownEncoder: Nothing of this name is registered, and no such folder exists.
        EncoderUnavailable: Its model cannot be loaded.
        MissingExtra: It needs a part of pgneural that is not installed.
    """
    if not isinstance(name, (str, Path)):
        if not callable(getattr(name, "transcribe", None)):
            raise UnknownEncoder(f"the transcriber is {name!r}; give a name, a folder, or what has a method transcribe")
        return name
    text = str(name) or DEFAULT
    return MODELS.get(key_of("transcriber", text, {}), lambda: _made(text))


def again(name: str) -> Transcriber:
    """Return the transcriber that a database names: one that is registered here, by default `DEFAULT`.

    Whoever may write to a database may write any name there, so no folder and no model of the hub is loaded by it.

    Raises:
        UnpermittedModel: It is not registered.
    """
    if name and name not in available():
        raise UnpermittedModel(
            f"the recordings of the collection were transcribed by {name!r}, which is not registered here; "
            "index with transcriber= (--transcriber), and ask by what transcribe(sound, transcriber) returns as text"
        )
    return get(name)


def available() -> list[str]:
    """Return the names that are registered."""
    return sorted(_registered())


def _made(name: str) -> Transcriber:
    if point := _registered().get(name):
        made: Transcriber = point.load()()
        return made
    if not name or (not Path(name).is_dir() and "/" not in name):
        raise UnknownEncoder(
            f"no transcriber {name!r}; registered are {', '.join(available())}, "
            "or give a speech recognition model as a folder or as owner/name"
        )
    if Path(name).is_dir() and not (Path(name) / "model.bin").exists():
        from pgneural.transcribers.pipeline import PipelineTranscriber

        return PipelineTranscriber(name)
    from pgneural.transcribers.whisper import WhisperTranscriber

    return WhisperTranscriber(name)


@functools.cache  # what is installed stays the same while a process runs
def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
