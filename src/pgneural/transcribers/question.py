"""A question that is spoken: what is asked of a search that has no ear for sounds is what is said in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pgneural.errors import InvalidQuery
from pgneural.load.question import weighted
from pgneural.transcribers import Transcriber, get, hear
from pgneural.types import Media, Modality


def in_words(question: Any, accepts: Callable[[Modality], bool], transcriber: Callable[[], Transcriber] = get) -> Any:
    """Return a question, its sounds as the texts that are spoken in them, unless sounds are accepted.

    Args:
        question: As `pgneural.load.read_question` returns it; of a mapping of terms to weights, each term.
        accepts: Tells which kinds of content the encoder accepts.
        transcriber: Makes what hears it.

    Raises:
        InvalidQuery: Nothing is spoken in it.
        MissingExtra: The transcriber is not installed.
    """
    if isinstance(question, Mapping):
        return weighted(question, lambda term: in_words(term, accepts, transcriber))
    if not isinstance(question, Media) or question.modality is not Modality.AUDIO or accepts(Modality.AUDIO):
        return question
    text = " ".join(hear(question.data, transcriber()).text.split())
    spoken = _OPERATORS.sub(" ", text).strip()
    if not spoken:
        raise InvalidQuery("no speech was heard in the sound; ask a collection whose encoder accepts sounds")
    return spoken


_OPERATORS = re.compile(r'["*]|(?<!\S)-+')
"""What means something in a query, and nothing in speech: quotation marks, asterisks, dashes before words."""
