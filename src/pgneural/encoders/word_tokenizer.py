"""Cutting text into words and punctuation, for encoders without a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w{1,100}|[^\w\s]")


class WordTokenizer:
    """One token for each run of word characters, of at most 100, and for each other printing character."""

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the character span of each token."""
        return [match.span() for match in _WORD.finditer(text)]

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text."""
        return [sum(1 for _ in _WORD.finditer(text)) for text in texts]
