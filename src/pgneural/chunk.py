"""Cutting the text of a row into chunks that an encoder can read whole.

Pure: text and token spans in, chunks out. Lengths are counted in the encoder's own tokens. A chunk ends
where a sentence ends, unless one sentence alone is too long; neighbouring chunks share whole sentences,
up to `overlap` tokens, so that a thought on a border is found from both sides. The spans cover the text:
nothing is lost, and the text can be rebuilt from them. Pages are cut each for itself, and blank ones have no chunk.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pgneural.types import Chunk, Content, Tokenizer, below

Span = tuple[int, int]

PAGE_END = "\f"
"""A form feed ends a page, as in plain text of all times; no chunk goes beyond it, and each knows its page."""

MOST_PAGES = 10_000
"""A text with more form feeds is no book; they are white space there."""

CHUNK_TOKENS = 512
"""The longest chunk, where the encoder reads as much: a few paragraphs, the passages that retrieval models
are trained on. A longer one blurs several subjects into one vector."""

OVERLAP_SHARE = 8
"""Neighbouring chunks share at most one part in so many of their tokens."""

SPOKEN_TOKENS = 96
"""The longest chunk of what was spoken: half a minute, at 150 words a minute. A hit says when its chunk begins, and who
listens to it will not wait longer for what he has searched."""

HEADING_SHARE = 4
"""A title is put before every chunk while it takes at most one part in so many of the tokens."""

_BOUNDARY = re.compile(
    r"""
      (?<![.!?…]) [.!?…]++ ["')\]»”’]*+ \s++  # the end of a sentence
    | [。！？]++ [」』”’）]*+ \s*+           # the same in Chinese and Japanese
    | (?<!\n) \n [^\S\n]*+ \n \s*+          # an empty line
    | \n (?= [#\-*+>|] | \d+[.)] )  # before a Markdown heading, list item, quotation or table row
    """,
    re.VERBOSE,
)


def chunk(content: Content, tokenizer: Tokenizer, *, max_tokens: int, overlap: int) -> list[Chunk]:
    """Cut a text into chunks; its title becomes the heading of each.

    A title that is too long for a heading, or that stands alone, becomes chunks of its own.

    Args:
        content: A text with a title, or one of them.
        tokenizer: The encoder's own.
        max_tokens: The most tokens of a chunk with its heading, at least 1.
        overlap: The most tokens that two neighbouring chunks share.
    """
    heading, text = content.title.strip(), content.data
    assert isinstance(text, str)
    if content.seconds:
        max_tokens, overlap = min(max_tokens, SPOKEN_TOKENS), min(overlap, SPOKEN_TOKENS // OVERLAP_SHARE)
    titles: list[Chunk] = []
    if heading:
        taken = tokenizer.counts([heading + "\n"])[0]
        if taken * HEADING_SHARE > max_tokens or not text.strip():
            titles, heading = _field("title", content.title, "", tokenizer, max_tokens, overlap), ""
    chunks = _field("content", text, heading, tokenizer, max_tokens, overlap)
    return [*titles, *(_timed(chunks, text, content.seconds) if content.seconds else chunks)]


def _timed(chunks: list[Chunk], text: str, seconds: Sequence[Sequence[float]]) -> list[Chunk]:
    """Add to the place of each chunk when it was spoken, where that is known for each line."""
    ends = [at for at, character in enumerate(text) if character == "\n"]
    if len(seconds) != len(ends) + 1:
        return chunks

    def timed(chunk: Chunk) -> Chunk:
        start, stop = chunk.locator["content"]
        stop = start + len(text[start:stop].rstrip())
        first, last = bisect_left(ends, start), bisect_left(ends, max(start, stop - 1))
        return replace(chunk, locator={**chunk.locator, "seconds": [seconds[first][0], seconds[last][1]]})

    return [timed(chunk) for chunk in chunks]


def _field(name: str, text: str, heading: str, tokenizer: Tokenizer, max_tokens: int, overlap: int) -> list[Chunk]:
    chunks, at = [], 0
    pages = text.split(PAGE_END) if text.count(PAGE_END) < MOST_PAGES else [text]
    for number, page in enumerate(pages, start=1):
        numbered = {"page": number} if len(pages) > 1 else {}
        if page.strip():
            for start, stop in chunk_spans(page, tokenizer, max_tokens=max_tokens, overlap=overlap, heading=heading):
                chunks.append(Chunk.under(heading, page[start:stop], {name: [at + start, at + stop], **numbered}))
        at += len(page) + len(PAGE_END)
    return chunks


def chunk_spans(text: str, tokenizer: Tokenizer, *, max_tokens: int, overlap: int, heading: str = "") -> list[Span]:
    """Return the character spans of the chunks of a text, in order.

    The first starts at 0, the last stops at the end, and each starts no later than its predecessor
    stops. A piece of text may have more tokens on its own than inside its text; a span for which that
    matters is halved until it fits, together with the heading that is put before it.
    """
    tokens = tokenizer.spans(text)
    room = max(1, max_tokens - (tokenizer.counts([heading + "\n"])[0] if heading else 0))
    if len(tokens) <= room:
        spans = [(0, len(text))]
    else:
        starts = [start for start, _ in tokens]
        spans = _pack(_pieces(text, starts, room), starts, room, min(overlap, room // 2))
    return _fitting(text, spans, heading, tokenizer, max_tokens)


def _sentences(text: str) -> Iterator[Span]:
    """Partition the text at the ends of sentences; white space belongs to the sentence before it."""
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        if boundary.end() > start:
            yield start, boundary.end()
            start = boundary.end()
    if start < len(text):
        yield start, len(text)


def _pieces(text: str, token_starts: Sequence[int], max_tokens: int) -> Iterator[Span]:
    """Partition the text into sentences, and sentences that are too long at their tokens."""
    for start, stop in _sentences(text):
        first, last = bisect_left(token_starts, start), bisect_left(token_starts, stop)
        every = [token_starts[at] for at in range(first + max_tokens, last, max_tokens)]
        cuts = [at for at in dict.fromkeys(every) if at > start]  # several tokens may spell out one character
        yield from zip([start, *cuts], [*cuts, stop], strict=True)


def _pack(pieces: Iterator[Span], token_starts: Sequence[int], max_tokens: int, overlap: int) -> list[Span]:
    """Fill chunks with whole pieces, each beginning with the last pieces of the one before."""

    def tokens(start: int, stop: int) -> int:
        return bisect_left(token_starts, stop) - bisect_left(token_starts, start)

    spans: list[Span] = []
    current: list[Span] = []
    for piece in pieces:
        if current and tokens(current[0][0], piece[1]) > max_tokens:
            spans.append((current[0][0], current[-1][1]))
            current = _shared(current, piece, overlap, max_tokens, tokens)
        current.append(piece)
    if current:
        spans.append((current[0][0], current[-1][1]))
    return spans


def _shared(
    current: list[Span], piece: Span, overlap: int, max_tokens: int, tokens: Callable[[int, int], int]
) -> list[Span]:
    """Return the last pieces of a chunk that the next one repeats, so that the new piece still fits."""
    first = len(current)
    while first > 1:
        start = current[first - 1][0]
        if tokens(start, current[-1][1]) > overlap or tokens(start, piece[1]) > max_tokens:
            break
        first -= 1
    return current[first:]


def _fitting(text: str, spans: list[Span], heading: str, tokenizer: Tokenizer, max_tokens: int) -> list[Span]:
    """Halve every span that has too many tokens when it stands alone under its heading."""
    counts = tokenizer.counts([below(heading, text[start:stop]) for start, stop in spans])
    fitting: list[Span] = []
    for (start, stop), count in zip(spans, counts, strict=True):
        if count <= max_tokens or stop - start == 1:
            fitting.append((start, stop))
        else:
            middle = (start + stop) // 2
            fitting += _fitting(text, [(start, middle), (middle, stop)], heading, tokenizer, max_tokens)
    return fitting
