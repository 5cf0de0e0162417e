"""Vectors that were made elsewhere: a space without an encoder of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from pgneural.encoders.word_tokenizer import WordTokenizer
from pgneural.errors import EncoderUnavailable, InvalidIndex, UnknownEncoder
from pgneural.types import Distance, EncoderInput, Kind, Modality, Tokenizer

REVISION = "given"
"""The revision of all vectors that were made elsewhere. It is in the hashes of stored documents, so it stays."""


@dataclass(frozen=True)
class PrecomputedVectors:
    """Stands for whatever made the vectors; it knows their length and can encode nothing itself."""

    dimensions: int
    distance: Distance = Distance.COSINE

    @classmethod
    def from_name(cls, name: str, distance: Distance | str = Distance.COSINE) -> PrecomputedVectors:
        """Read a name like ``vectors:768``.

        Args:
            name: It.
            distance: How the vectors are to be compared; ``hamming`` and ``jaccard`` are of vectors of 0 and 1.

        Raises:
            UnknownEncoder: The part after the colon is not a positive number.
            InvalidIndex: There is no such distance.
        """
        dimensions = name.removeprefix("vectors:")
        if not dimensions.isdecimal() or int(dimensions) == 0:
            raise UnknownEncoder(f"no encoder {name!r}; write vectors:<dimensions>, for example vectors:768")
        if distance not in tuple(Distance):
            raise InvalidIndex(f"distance is {distance!r}, expected {', '.join(Distance)}")
        return cls(int(dimensions), Distance(distance))

    @property
    def name(self) -> str:
        """``vectors:<dimensions>``."""
        return f"vectors:{self.dimensions}"

    @property
    def revision(self) -> str:
        """Always ``given``: where such vectors come from is the caller's to know."""
        return REVISION

    @property
    def kind(self) -> Kind:
        """One vector for a content."""
        return Kind.DENSE

    @property
    def modalities(self) -> frozenset[Modality]:
        """Any."""
        return frozenset(Modality)

    @property
    def max_tokens(self) -> None:
        """No limit: a given vector stands for the whole content."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Words; never needed to make a vector."""
        return WordTokenizer()

    def encode_documents(self, items: Sequence[EncoderInput]) -> NoReturn:
        """Refuse: documents of this space bring their vectors along.

        Raises:
            EncoderUnavailable: Always.
        """
        raise EncoderUnavailable(
            f"{self.name} cannot encode; give every document an embedding of {self.dimensions} numbers"
        )

    def encode_query(self, item: EncoderInput) -> NoReturn:
        """Refuse: queries of this space are vectors.

        Raises:
            EncoderUnavailable: Always.
        """
        raise EncoderUnavailable(f"{self.name} cannot encode; search with a vector of {self.dimensions} numbers")
