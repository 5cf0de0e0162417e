"""A sentence-transformers model folder, read without loading the model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgneural.types import Distance

DISTANCES = {
    "cosine": Distance.COSINE,
    "dot": Distance.INNER_PRODUCT,
    "euclidean": Distance.L2,
    "manhattan": Distance.L1,
}
"""The similarity functions of sentence-transformers."""

_PLAIN: dict[str, Any] = {
    "do_lower_case": False,
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""What ``sentence_bert_config.json`` says of a model that is given the tokens of a text and nothing else."""

_GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Tokenizers that are as ``tokenizer.json`` says."""

_TOKENIZERS = {*_GENERIC, "BertTokenizer", "BertTokenizerFast"}

_NORMALIZER: dict[str, tuple[str, bool | None]] = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
"""What ``tokenizer_config.json`` says of the text, by the names of ``tokenizer.json``, and what it is by default."""

_NOT_WEIGHTS = {"README.md", "data_config.json"}


@dataclass(frozen=True)
class ModelFolder:
    """The files that decide what vectors a model makes."""

    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """The ``config.json`` of its network."""
        return _json(self.path / "config.json")

    @property
    def modules(self) -> set[str]:
        """The kinds of its parts: ``Transformer``, ``Pooling``, ``Normalize`` and others; those of others in full."""
        listed = json.loads((self.path / "modules.json").read_text(encoding="utf-8"))
        types = [str(module["type"]) for module in listed]
        return {type_.rpartition(".")[2] if type_.startswith("sentence_transformers.") else type_ for type_ in types}

    @property
    def reads_text_plainly(self) -> bool:
        """Whether its ``tokenizer.json`` alone says how a text becomes tokens, and the library does nothing else.

        The library makes the tokenizer of a BERT anew from ``tokenizer_config.json``, which may say otherwise.
        """
        library, tokens = _json(self.path / "sentence_bert_config.json"), _json(self.path / "tokenizer.json")
        if any(library.get(name, usual) != usual for name, usual in _PLAIN.items()):
            return False
        config, normalizer = _json(self.path / "tokenizer_config.json"), tokens.get("normalizer") or {}
        kinds = [(tokens.get(part) or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")]
        if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"] or not tokens.get("post_processor"):
            return False
        if config.get("truncation_side", "right") != "right" or config.get("tokenizer_class") not in _TOKENIZERS:
            return False
        generic = config.get("tokenizer_class") in _GENERIC
        return all(
            config.get(name, normalizer.get(same) if generic else usual) == normalizer.get(same)
            for name, (same, usual) in _NORMALIZER.items()
        ) and not library.keys() - {*_PLAIN, "max_seq_length"}

    @property
    def pooling(self) -> str | None:
        """How the vectors of tokens become one, where that is a matter of one word: ``mean``, ``cls`` or another."""
        config = _json(self.path / "1_Pooling" / "config.json")
        if not config.get("include_prompt", True):
            return None
        flags = {name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
                 for name, on in config.items() if name.startswith("pooling_mode_") and on is True}  # fmt: skip
        modes = {str(config["pooling_mode"])} if "pooling_mode" in config else flags
        return modes.pop() if len(modes) == 1 else None

    @property
    def prompts(self) -> tuple[str, str]:
        """What is put before queries, and before documents."""
        own = _json(self.path / "config_sentence_transformers.json").get("prompts") or {}
        return own.get("query") or "", own.get("document") or own.get("passage") or ""

    @property
    def limit(self) -> int | None:
        """How many tokens the library lets it read, special tokens included; None where only loading would tell."""
        config = _json(self.path / "sentence_bert_config.json")
        limit = config.get("max_seq_length") or _json(self.path / "tokenizer_config.json").get("model_max_length")
        return int(limit) if limit and limit <= self.config.get("max_position_embeddings", 0) else None

    @property
    def dimensions(self) -> int | None:
        """The length of its vectors, where its configuration says so."""
        for module in sorted(self.path.glob("*_*/config.json"), reverse=True):
            content = _json(module)
            for key in ("out_features", "word_embedding_dimension", "embedding_dimension"):
                if key in content:
                    return int(content[key])
        hidden = self.config.get("projection_dim") or self.config.get("hidden_size")
        return int(hidden) if hidden else None

    @property
    def max_tokens(self) -> int | None:
        """How many tokens it reads, special tokens included, where its configuration says so."""
        limit = _json(self.path / "sentence_bert_config.json").get("max_seq_length")
        limit = limit or self.config.get("max_position_embeddings")
        return int(limit) if limit else None

    @property
    def distance(self) -> Distance:
        """How its vectors are compared, as its configuration says."""
        similarity = _json(self.path / "config_sentence_transformers.json").get("similarity_fn_name")
        return DISTANCES.get(str(similarity), Distance.COSINE)

    @property
    def revision(self) -> str:
        """Twelve hexadecimal digits over the names and contents of its files."""
        digest = hashlib.blake2b(digest_size=6)
        for file in sorted(self.path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(self.path).parts)
            if file.is_file() and not hidden and file.name not in _NOT_WEIGHTS:
                digest.update(str(file.relative_to(self.path).as_posix()).encode())
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "blake2b").digest())
        return digest.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
