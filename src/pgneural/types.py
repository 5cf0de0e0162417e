"""The words that every other module shares: plain values, closed sets and contracts.

Nothing here knows about a database, a model or a file format, so every floor above can import it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""A float32 array, shape (d,) for one vector or (n, d) for many."""

Pixels = NDArray[np.uint8]
"""A picture: RGB values, shape (height, width, 3)."""

Views = NDArray[np.uint8]
"""A mesh: pictures of it from all sides, shape (views, height, width, 3)."""

Samples = NDArray[np.int16]
"""A sound of one channel, shape (n,), `SAMPLING_RATE` values a second."""

SAMPLING_RATE = 16_000
"""In hertz: what networks for speech read."""

SOUND_SECONDS = 10.0
"""So much of a sound is heard at a time by encoders that do not say it: the clips that such networks are trained on."""

EncoderInput = str | bytes | NDArray[Any]
"""What an encoder reads: a text, pixels of a picture, views of a mesh, samples of a sound, or what else it accepts."""


def has_direction(vector: Vector) -> bool:
    """Whether a vector is neither zero nor, itself or in its square, beyond what a float32 holds."""
    return bool(0 < np.vdot(vector, vector) < np.inf)  # vdot: unlike @ it gives no warning on overflow


class Modality(enum.StrEnum):
    """The kind of content that a row holds or an encoder accepts."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    PDF = "pdf"
    MESH = "mesh"


@dataclass(frozen=True, eq=False, slots=True)
class Media:
    """A picture, a sound or a mesh that a search is asked by.

    Attributes:
        modality: Of which kind it is.
        data: `Pixels` of a picture, `Samples` of a sound, `Views` of a mesh.
    """

    modality: Modality
    data: NDArray[Any]


class Mode(enum.StrEnum):
    """Which legs a search uses."""

    SEMANTIC = "semantic"
    LEXICAL = "lexical"
    SPARSE = "sparse"
    HYBRID = "hybrid"


class Kind(enum.StrEnum):
    """What an encoder makes of a text: one vector, a weight for each word that it knows, or a vector for each token."""

    DENSE = "dense"
    SPARSE = "sparse"
    TOKENS = "tokens"


class Sync(enum.StrEnum):
    """When rows that changed are encoded."""

    INLINE = "inline"
    QUEUE = "queue"
    MANUAL = "manual"


class Distance(enum.StrEnum):
    """How two vectors are compared, in pgvector's words. Smaller is nearer; Hamming and Jaccard compare bits."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "inner_product"
    L1 = "l1"
    HAMMING = "hamming"
    JACCARD = "jaccard"

    @property
    def operator(self) -> str:
        """The pgvector operator, for example ``<=>``."""
        return _OPERATORS[self.value]


_OPERATORS = {"cosine": "<=>", "l2": "<->", "inner_product": "<#>", "l1": "<+>", "hamming": "<~>", "jaccard": "<%>"}


@dataclass(frozen=True, slots=True)
class Content:
    """What a row has to be found by, of whatever kind.

    Attributes:
        modality: Of which kind it is; chunkers and encoders are chosen by it (`pgneural.chunkers`).
        data: Itself: a text, the bytes of a file, or a decoded array; None where only `uri` says where it is.
        title: A short text that stands above it.
        uri: Where it came from, or is.
        words: Of what is no text: what is told of it in words, as by a caption or a transcript.
        seconds: When each line of its text was spoken, from and to; empty where it was not.
    """

    modality: Modality
    data: EncoderInput | None
    title: str = ""
    uri: str | None = None
    words: str = ""
    seconds: Sequence[Sequence[float]] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to find it by."""
        if isinstance(self.data, str):
            return not self.title.strip() and not self.data.strip()
        return self.data is None and not self.uri

    @property
    def in_words(self) -> Content:
        """What is told of it in words, as a text."""
        return Content(Modality.TEXT, self.words, self.title, self.uri, seconds=self.seconds)

    @property
    def size(self) -> int:
        """How many bytes, or characters of a text, it has here."""
        return self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data or "")

    @property
    def digest(self) -> bytes:
        """16 bytes that change whenever what is encoded of it does; a title is encoded with a text alone."""
        data = self.data
        if isinstance(data, np.ndarray):
            return fingerprint(self.modality, f"{data.shape} {data.dtype}", data.tobytes())
        title = self.title if self.modality is Modality.TEXT else ""
        return fingerprint(self.modality, title, self.uri or "" if data is None else data)


@dataclass(frozen=True, slots=True)
class Record:
    """One document as a loader reads it, before it is stored.

    Attributes:
        external_id: The caller's own identifier, unique within a collection.
        content: The text to be searched. May be empty where the title is not. Of what is no text: its words, as of a
            caption or a transcript, which are searched beside it.
        title: A short heading; it is put before every chunk when the chunk is encoded.
        metadata: A JSON object, for filters. Never encoded. ``seconds`` may say when each line of the content was
            spoken, in pairs of from and to; its chunks then say so.
        uri: Where the document came from.
        modality: What kind of content this is.
        data: What is encoded, where it is no text: `Pixels` of a picture, `Samples` of a sound, `Views` of a mesh.
        embedding: A vector made elsewhere, shape (d,); the document is then not encoded here.
        origin: File and line, for messages (``notes.jsonl:12``).
    """

    external_id: str
    content: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    uri: str | None = None
    modality: Modality = Modality.TEXT
    embedding: Vector | None = None
    origin: str = ""
    data: NDArray[Any] | bytes | None = None

    @property
    def body(self) -> Content:
        """What it is found by."""
        seconds = seconds_of(self.metadata.get(SECONDS_FIELD))
        if self.modality is Modality.TEXT:
            return Content(self.modality, self.content, self.title, self.uri, seconds=seconds)
        return Content(self.modality, self.data, self.title, self.uri, self.content, seconds)


SECONDS_FIELD, TRANSCRIBER_FIELD = "seconds", "transcriber"
"""Where the metadata of a document says when each line of its content was spoken, and what has heard it."""


def seconds_of(value: Any) -> Sequence[Sequence[float]]:
    """Return when each line of a text was spoken, from and to, in seconds; nothing where a value does not say so."""
    return value if isinstance(value, Sequence) and all(map(_is_span, value)) else ()


LATEST_SECOND = 10**7
"""Four months."""


def _is_span(value: Any) -> bool:
    if not isinstance(value, Sequence) or len(value) != 2 or not all(type(each) in (int, float) for each in value):
        return False
    return bool(0 <= value[0] <= value[1] <= LATEST_SECOND)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not be read or stored: where it stands and why."""

    origin: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}" if self.origin else self.reason


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one source row that gets one vector.

    Attributes:
        text: The piece itself, without its heading; empty where it is no text.
        locator: Where it lies in the row, for example ``{"content": [0, 512]}`` in characters.
        input: What the encoder reads: of a text, the text below its heading if it has one.
        hash: 16 bytes that change whenever the input changes.
    """

    text: str
    locator: dict[str, Any]
    input: EncoderInput
    hash: bytes

    @classmethod
    def under(cls, heading: str, text: str, locator: dict[str, Any]) -> Chunk:
        """Make the chunk of a text below a heading, which may be empty."""
        read = below(heading, text)
        return cls(text, locator, read, fingerprint(read))


def below(heading: str, text: str) -> str:
    """Put a heading before a text."""
    return f"{heading}\n{text}" if heading else text


def fingerprint(*parts: str | bytes) -> bytes:
    """Return 16 bytes (of SHA-256) that differ when any part, or the split into parts, differs."""
    data = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    lengths = str([*map(len, data)]).encode()
    return hashlib.sha256(b"".join([lengths, *data])).digest()[:16]


class Tokenizer(Protocol):
    """How an encoder cuts text into tokens."""

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the character span of each token of one text, in order, without special tokens."""

    def counts(self, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text, without special tokens."""


class AnyEncoder(Protocol):
    """A named, versioned function from content to vectors (design 5.6); `kind` says of which form.

    ``revision`` changes whenever the same content would give other vectors; vectors of two revisions are never
    compared.
    """

    @property
    def name(self) -> str:
        """The name under which the registry finds this encoder, or the folder of its model."""

    @property
    def revision(self) -> str:
        """Identifies the weights and everything else that decides the vectors."""

    @property
    def kind(self) -> Kind:
        """What it makes of a content."""

    @property
    def dimensions(self) -> int:
        """The length of a vector."""

    @property
    def distance(self) -> Distance:
        """How its vectors are to be compared."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """The kinds of content it accepts."""


class ExtraEncoder(AnyEncoder, Protocol):
    """An encoder of sparse vectors, or of vectors of tokens; what is beyond a model's length is cut."""

    def encode_documents(self, items: Sequence[str]) -> Sequence[Vector]:
        """Return a vector, shape (d,), or vectors of tokens, shape (t, d), for each text."""

    def encode_query(self, item: str) -> Vector:
        """Return the same for a query."""


class Encoder(AnyEncoder, Protocol):
    """An encoder of one vector for each content.

    ``max_tokens`` is how many tokens of content fit, special tokens and prompts already taken off; ``None`` where
    there is no limit.
    """

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of content fit into one vector."""

    @property
    def tokenizer(self) -> Tokenizer:
        """How it cuts text; the chunker counts with it."""

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, d), in the order of the items."""

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (d,)."""
