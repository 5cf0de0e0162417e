"""A tokenizer whose every text can be read: what would be one unknown token is cut up, or spelt out.

WordPiece takes a word of more than 100 characters, or one with a character that is not in its vocabulary, for one
unknown token, whatever else is in it: two sequences of DNA, or two texts in Thai, would have the same vector. So such a
word is cut into pieces that are known; a character that is not known at all is spelt out, an emoji by its name and any
other by its number. All other texts are left exactly as they are, and so are their vectors: this is why the revision of
an encoder stays the same.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pgneural.errors import TextTooLong
from pgneural.printable import warn
from pgneural.types import EncoderInput

if TYPE_CHECKING:
    import tokenizers

PIECE = 50
"""Characters of a piece of a long word: half of what WordPiece reads, and some tokens of what it knows."""

LONGEST_TOKEN = 100
"""Characters of a token with what stands before it, or more: what lies behind is not even looked at."""

Piece = tuple[int, int, str]
"""A part of a text, from and to, and how it is read."""


class ReadableTokenizer:
    """A Rust tokenizer without truncation or padding, and without unknown words.

    Args:
        backend: What the model uses.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        import tokenizers

        self._backend = tokenizers.Tokenizer.from_str(backend.to_str())  # theirs is set anew by every call
        self._backend.no_truncation()
        self._backend.no_padding()
        self._unknown = _unknown_token(self._backend)
        self._known = functools.lru_cache(maxsize=4096)(self._is_known)

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the character span of each token; tokens that spell out one character have its span."""
        encoding = self._encode([text])[0]
        if self._unknown not in encoding.ids:
            return [span for span in encoding.offsets if span[1] > span[0]]
        pieces = list(self._pieces(text, encoding))
        parts = self._encode([read for _, _, read in pieces])
        spans: list[tuple[int, int]] = []
        for (start, stop, read), part in zip(pieces, parts, strict=True):
            if read == text[start:stop]:
                spans += [(start + a, start + b) for a, b in part.offsets if b > a]
            else:
                spans += [(start, stop)] * len(part)
        return spans

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text."""
        return [count for _, count in self.read(texts)]

    def read(self, texts: Sequence[str]) -> list[tuple[str, int]]:
        """Return each text as the model is to read it, with the number of its tokens."""
        encoded = self._encode(texts)
        known = [(text, len(encoding)) for text, encoding in zip(texts, encoded, strict=True)]
        for at, encoding in enumerate(encoded):
            if self._unknown is not None and self._unknown in encoding.ids:
                read = "".join(read for _, _, read in self._pieces(texts[at], encoding))
                known[at] = read, len(self._encode([read])[0])
        return known

    def shortened(self, text: str, limit: int | None, name: str) -> str:
        """Return a query as a model is to read it; of one that is too long, which is told of, what the model reads."""
        endless = limit is not None and len(text) > limit * LONGEST_TOKEN
        if limit is not None and endless:
            warn(f"the query has {len(text)} characters; {name} reads {limit} tokens", stacklevel=3)
            text = text[: limit * LONGEST_TOKEN]
        ((read, length),) = self.read([text])
        if limit is not None and length > limit and not endless:
            warn(f"the query has {length} tokens; {name} reads the first {limit}", stacklevel=3)
        return read

    def checked(self, items: Sequence[EncoderInput], limit: int | None, name: str) -> tuple[list[str], list[int]]:
        """Return documents as a model is to read them, and how many tokens each has.

        Raises:
            TextTooLong: One has more than the model reads.
            TypeError: One is no text.
        """
        read = self.read([text_of(item) for item in items])
        lengths = [length for _, length in read]
        if limit is not None and max(lengths, default=0) > limit:
            raise TextTooLong(f"a text has {max(lengths)} tokens, but {name} reads {limit}; cut it into chunks first")
        return [text for text, _ in read], lengths

    def _pieces(self, text: str, encoding: tokenizers.Encoding) -> Iterator[Piece]:
        """Partition a text into what is read as it stands, and what is cut up or spelt out."""
        done = 0
        for id_, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ != self._unknown or stop <= start or start < done:
                continue
            if start > done:
                yield done, start, text[done:start]
            yield from self._readable(text, start, stop)
            done = stop
        if done < len(text):
            yield done, len(text), text[done:]

    def _readable(self, text: str, start: int, stop: int) -> Iterator[Piece]:
        cuts = [(at, min(at + PIECE, stop)) for at in range(start, stop, PIECE)]
        parts = self._encode([text[a:b] for a, b in cuts])
        for (a, b), part in zip(cuts, parts, strict=True):
            if self._unknown not in part.ids:
                yield a, b, f" {text[a:b]} "
                continue
            for at in range(a, b):
                yield at, at + 1, f" {self._spelt(text[at])} "

    def _spelt(self, character: str) -> str:
        if self._known(character):
            return character
        if unicodedata.category(character) in ("So", "Sk", "Sm", "Sc"):
            name = unicodedata.name(character, "").lower()
            if name and self._known(name):
                return name
        return f"{ord(character):x}"

    def _is_known(self, text: str) -> bool:
        ids = self._encode([text])[0].ids
        return self._unknown not in ids and (bool(ids) or bool(unicodedata.combining(text[0])))

    def _encode(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        encoded: list[tokenizers.Encoding] = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return encoded


def text_of(item: EncoderInput) -> str:
    """Return what a text encoder was given.

    Raises:
        TypeError: It is no text.
    """
    if not isinstance(item, str):
        raise TypeError(f"a text encoder got {type(item).__name__}, expected str")
    return item


def reader_of(tokenizer: Any) -> Callable[[Sequence[str]], list[str]]:
    """Return what makes texts readable for a model by its tokenizer; a slow one leaves them as they are."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "num_special_tokens_to_add"):
        return list
    readable = ReadableTokenizer(backend)
    return lambda texts: [text for text, _ in readable.read(texts)]


def as_texts(model: Any, texts: Sequence[str]) -> list[Any]:
    """Return texts so that a model of sentence-transformers takes them for such.

    One that accepts more would open a text that is the path of a file, or a URL that ends as one.
    """
    accepted = getattr(model, "modalities", ("text",))
    return list(texts) if set(accepted) <= {"text"} else [{"text": text} for text in texts]


def _unknown_token(backend: tokenizers.Tokenizer) -> int | None:
    """Return the number of the token for what is not known; None where every byte is."""
    model = json.loads(backend.to_str())["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token = model.get("unk_token")
    return None if token is None else backend.token_to_id(token)
