"""A question that is spoken: what is asked of a search that has no ear for sounds is what is said in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pgneural.errors import InvalidQuery
from pgneural.transcribers import get, hear
from pgneural.types import Media, Modality


def in_words(question: Any, accepts: Callable[[Modality], bool]) -> Any:
    """Return a question, its sounds as the texts that are spoken in them, unless sounds are accepted.

    Args:
        question: As `pgneural.load.read_question` returns it; of a mapping of terms to weights, each term.
        accepts: Tells which kinds of content the encoder accepts.

    Raises:
        InvalidQuery: Nothing is spoken in it.
        MissingExtra: The transcriber is not installed.
    """
    if isinstance(question, Mapping):
        return {in_words(term, accepts): weight for term, weight in question.items()}
    if not isinstance(question, Media) or question.modality is not Modality.AUDIO or accepts(Modality.AUDIO):
        return question
    text = " ".join(line.text for line in hear(question.data, get()).lines)
    if not text:
        raise InvalidQuery("no speech was heard in the sound; ask a collection whose encoder accepts sounds")
    return text
