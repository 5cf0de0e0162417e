"""Recordings on their way into a collection: what is spoken in them becomes their words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from pgneural.errors import EncoderUnavailable, MissingExtra
from pgneural.transcribers import Transcriber, hear
from pgneural.types import SECONDS_FIELD, BadRecord, Modality, Record


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
        spoken = isinstance(record, Record) and record.modality is Modality.AUDIO
        yield _heard(record, transcriber) if spoken and not unless() else record  # type: ignore[arg-type]


def _heard(record: Record, transcriber: Callable[[], Transcriber]) -> Record | BadRecord:
    if record.content.strip() or not isinstance(record.data, np.ndarray):
        return record
    try:
        model = transcriber()
    except (MissingExtra, EncoderUnavailable) as error:
        return BadRecord(record.origin or record.external_id, str(error))
    heard = hear(record.data, model)
    if not heard.lines:
        return BadRecord(
            record.origin or record.external_id,
            "no speech was heard in it; index it into a collection whose encoder accepts sounds, as openwakeword does",
        )
    about = {"language": heard.language, "transcriber": model.name, **record.metadata, SECONDS_FIELD: heard.seconds}
    return replace(record, content=heard.text, metadata=about)
