"""What can be said of an encoder without loading it."""

from __future__ import annotations

from dataclasses import dataclass

from pgneural.types import Distance, Modality


@dataclass(frozen=True)
class EncoderInfo:
    """What can be said of an encoder without loading it.

    Attributes:
        name: The name to give to `get`.
        dimensions: The length of its vectors; None where only loading would tell.
        max_tokens: How many tokens it reads; None for no limit, or where only loading would tell.
        modalities: What it accepts.
        ready: Whether it can be used here without a network.
        note: Why it is not ready, or where it comes from.
        distance: How its vectors are compared.
    """

    name: str
    dimensions: int | None
    max_tokens: int | None
    modalities: tuple[Modality, ...] = (Modality.TEXT,)
    ready: bool = True
    note: str = ""
    distance: Distance = Distance.COSINE
