"""Recordings on their way into a collection: what is spoken in them becomes their words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from pgneural.errors import PgneuralError
from pgneural.load import mistyped
from pgneural.transcribers import Transcriber, hear
from pgneural.types import SECONDS_FIELD, TRANSCRIBER_FIELD, BadRecord, Modality, Record

TOLD = 300
"""So many characters of what a model says of a sound are told."""


def with_transcripts(
    records: Iterable[Record | BadRecord], transcriber: Callable[[], Transcriber], unless: Callable[[], bool]
) -> Iterator[Record | BadRecord]:
    """Yield records; those of sounds that have no words yet with what is spoken in them, and when.

    Args:
        records: Of any kind.
        transcriber: Makes what hears them; called when the first sound comes.
        unless: Whether sounds go without.
    """
    for record in records:
        if isinstance(record, Record) and _is_unheard(record) and not unless():
            yield _heard(record, transcriber)
        else:
            yield record


def _is_unheard(record: Record) -> bool:
    """Whether a record is a sound, as it should be, without words."""
    sound = record.modality is Modality.AUDIO and isinstance(record.data, np.ndarray)
    return sound and mistyped(record) is None and not record.content.strip()


def _heard(record: Record, transcriber: Callable[[], Transcriber]) -> Record | BadRecord:
    assert isinstance(record.data, np.ndarray)
    origin = record.origin or record.external_id
    try:
        model = transcriber()
        heard = hear(record.data, model)
    except Exception as error:  # whatever a model makes of one sound, the others go on
        ours = isinstance(error, PgneuralError)
        reason = str(error) if ours else f"it cannot be transcribed: {type(error).__name__}: {error}"[:TOLD]
        return BadRecord(origin, reason)
    if not heard.lines:
        return BadRecord(
            origin,
            "no speech was heard in it; index it into a collection whose encoder accepts sounds, as openwakeword does",
        )
    known = {TRANSCRIBER_FIELD: model.name, SECONDS_FIELD: heard.seconds}
    about = {"language": heard.language, **record.metadata, **known}
    return replace(record, content=heard.text, metadata=about)
