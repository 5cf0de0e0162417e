"""Sentence-transformers models that accept pictures or sounds: CLIP, SigLIP, DINOv2, CLAP and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pgneural.encoders.folder import DISTANCES
from pgneural.encoders.inputs import are_views, mean_of_views, pixels_of, samples_of
from pgneural.encoders.loading import changed_revision, config_of, revision_of
from pgneural.encoders.readable import ReadableTokenizer
from pgneural.encoders.word_tokenizer import WordTokenizer
from pgneural.errors import DimensionMismatch, TextTooLong
from pgneural.extras import needed
from pgneural.load.sound import resampled, waves_of
from pgneural.types import SAMPLING_RATE, SOUND_SECONDS, Distance, EncoderInput, Kind, Modality, Tokenizer, Vector

if TYPE_CHECKING:
    import tokenizers
    from sentence_transformers import SentenceTransformer

PADDED = ("siglip", "siglip2")
"""Networks that read a text by its last place, which is padding: all texts have one length."""

BATCH = 16
"""Items in a batch: a picture has hundreds of tokens."""

ACCEPTED = (Modality.TEXT, Modality.IMAGE, Modality.AUDIO)
"""What can be given to a model here, by the names that the library has for it, too."""


class MultimodalEncoder:
    """An encoder over a `sentence_transformers.SentenceTransformer` that accepts more than texts.

    The library takes a text that is the path of a file, or a URL that ends as one, for that file. So it is never given
    a text as it stands, but as ``{"text": …}``.

    Args:
        loaded: The model.
        model: Its folder, or its name on the model hub.
        name: The name under which its spaces are recorded.
        dimensions: Keep only the first so many dimensions (Matryoshka models).
        query_prompt: Put before every query that is a text, instead of the model's own.
        document_prompt: Put before every document that is a text, instead of the model's own.

    Raises:
        DimensionMismatch: More dimensions are asked for than the model has.
    """

    kind = Kind.DENSE

    def __init__(
        self,
        loaded: SentenceTransformer,
        model: str,
        name: str,
        dimensions: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        self._model, self.name = loaded, name
        config = config_of(loaded)
        if getattr(config, "model_type", None) in PADDED:
            _pad_to_the_end(loaded)
        accepted = {each for each in ACCEPTED if each in loaded.modalities}
        self.modalities = frozenset(accepted | ({Modality.MESH} if Modality.IMAGE in accepted else set()))
        self._rate, self.max_seconds = _sound_side(loaded)
        self.distance = DISTANCES.get(loaded.similarity_fn_name, Distance.COSINE)
        prompts = loaded.prompts
        self._prompts = (
            prompts.get("query") or "" if query_prompt is None else query_prompt,
            prompts.get("document") or prompts.get("passage") or "" if document_prompt is None else document_prompt,
        )
        self.tokenizer, self.max_tokens = self._text_side()
        self.revision = changed_revision(revision_of(model, config), dimensions, (query_prompt, document_prompt))
        full = int(loaded.get_embedding_dimension() or self._forward([self._example()]).shape[1])
        if dimensions is not None and not 0 < dimensions <= full:
            raise DimensionMismatch(f"{name} gives {full} dimensions, so {dimensions} cannot be kept; ask for fewer")
        self.dimensions = dimensions or full

    def encode_documents(self, items: Sequence[EncoderInput]) -> Vector:
        """Return float32 vectors, shape (n, dimensions), of what is accepted, in any order.

        Raises:
            TextTooLong: A text has more than `max_tokens` tokens.
        """
        if meshes := [at for at, item in enumerate(items) if are_views(item)]:
            return self._with_meshes(items, meshes)
        by_kind: dict[Modality, list[int]] = {each: [] for each in ACCEPTED}
        for at, item in enumerate(items):
            by_kind[_modality_of(item)].append(at)
        self._require_short([str(items[at]) for at in by_kind[Modality.TEXT]])
        vectors = np.empty((len(items), self.dimensions), dtype=np.float32)
        for places in by_kind.values():  # a batch is of one kind
            for begin in range(0, len(places), BATCH):
                some = places[begin : begin + BATCH]
                vectors[some] = self._vectors([self._input(items[at], self._prompts[1]) for at in some])
        return vectors

    def encode_query(self, item: EncoderInput) -> Vector:
        """Return one float32 vector, shape (dimensions,), of what is accepted; a long text is cut with a warning."""
        if isinstance(item, str) and isinstance(self.tokenizer, ReadableTokenizer):
            item = self.tokenizer.shortened(item, self.max_tokens, self.name)
        if are_views(item):
            return self._with_meshes([item], [0])[0]  # type: ignore[no-any-return]
        vector: Vector = self._vectors([self._input(item, self._prompts[0])])[0]
        return vector

    def _with_meshes(self, items: Sequence[EncoderInput], meshes: Sequence[int]) -> Vector:
        vectors = np.empty((len(items), self.dimensions), dtype=np.float32)
        others = sorted(set(range(len(items))) - set(meshes))
        vectors[others] = self.encode_documents([items[at] for at in others])
        for at in meshes:
            views = self.encode_documents(list(np.asarray(items[at])))
            vectors[at] = mean_of_views(views) if self.distance is Distance.COSINE else views.mean(axis=0)
        return vectors

    def _vectors(self, inputs: list[dict[str, Any]]) -> Vector:
        vectors = self._forward(inputs)[:, : self.dimensions]
        if self.distance is Distance.COSINE:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _forward(self, inputs: list[dict[str, Any]]) -> Vector:
        encoded: Vector = self._model.encode(
            inputs,
            prompt="",  # it is in the texts already
            batch_size=BATCH,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(encoded, dtype=np.float32)

    def _input(self, item: EncoderInput, prompt: str) -> dict[str, Any]:
        if isinstance(item, str):
            return {"text": prompt + item}
        if _modality_of(item) is Modality.AUDIO:
            array = resampled(waves_of(samples_of(item)), SAMPLING_RATE, self._rate)
            return {"audio": {"array": array, "sampling_rate": self._rate}}
        with needed(f"encoder {self.name!r}", "image"):
            from PIL import Image
        return {"image": Image.fromarray(pixels_of(item))}

    def _example(self) -> dict[str, Any]:
        examples: dict[Modality, EncoderInput] = {
            Modality.TEXT: "a",
            Modality.IMAGE: np.zeros((32, 32, 3), dtype=np.uint8),
            Modality.AUDIO: np.zeros(SAMPLING_RATE, dtype=np.int16),
        }
        return self._input(next(examples[each] for each in ACCEPTED if each in self.modalities), "")

    def _require_short(self, texts: Sequence[str]) -> None:
        longest = max(self.tokenizer.counts(texts), default=0) if texts and self.max_tokens else 0
        if self.max_tokens and longest > self.max_tokens:
            raise TextTooLong(
                f"a text has {longest} tokens, but {self.name} reads {self.max_tokens}; cut it into chunks first"
            )

    def _text_side(self) -> tuple[Tokenizer, int | None]:
        """Return how texts are cut, and how many tokens of one are read."""
        backend = _backend(self._model)
        if backend is None:
            return WordTokenizer(), None
        tokenizer, limit = ReadableTokenizer(backend), _limit(self._model)
        taken = backend.num_special_tokens_to_add(False) + max(tokenizer.counts(self._prompts))
        return tokenizer, None if limit is None else limit - taken


def _modality_of(item: EncoderInput) -> Modality:
    if isinstance(item, str):
        return Modality.TEXT
    return Modality.AUDIO if isinstance(item, np.ndarray) and item.ndim == 1 else Modality.IMAGE


def _sound_side(model: SentenceTransformer) -> tuple[int, float]:
    """Return at which rate sounds are read, and how many seconds at a time."""
    processor: Any = getattr(model[0], "processor", None)
    extractor: Any = getattr(processor, "feature_extractor", processor)
    rate, seconds = getattr(extractor, "sampling_rate", None), getattr(extractor, "max_length_s", None)
    return int(rate or SAMPLING_RATE), float(seconds or SOUND_SECONDS)


def _pad_to_the_end(model: SentenceTransformer) -> None:
    """Have texts padded to the length that the network was trained with, by whose last place it reads them."""
    module: Any = model[0]
    module.processing_kwargs = {**(module.processing_kwargs or {}), "text": {"padding": "max_length"}}


def _backend(model: SentenceTransformer) -> tokenizers.Tokenizer | None:
    tokenizer: Any = getattr(model, "tokenizer", None)
    own: Any = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
    found: tokenizers.Tokenizer | None = getattr(own, "backend_tokenizer", None)
    return found


def _limit(model: SentenceTransformer) -> int | None:
    """Return how many tokens of a text the network has places for."""
    config = config_of(model)
    places = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    limits = [limit for limit in (places, model.max_seq_length) if limit and limit < 1_000_000]
    return min(limits, default=None)


def accepts_more_than_texts(model: SentenceTransformer) -> bool:
    """Whether a model is for `MultimodalEncoder`."""
    found = set(map(str, model.modalities))
    return any(each in found for each in ACCEPTED if each is not Modality.TEXT)
