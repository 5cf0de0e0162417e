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

_NOT_WEIGHTS = {"README.md", "data_config.json"}


@dataclass(frozen=True)
class ModelFolder:
    """The files that decide what vectors a model makes."""

    path: Path

    @property
    def dimensions(self) -> int | None:
        """The length of its vectors, where its configuration says so."""
        for module in sorted(self.path.glob("*_*/config.json"), reverse=True):
            content = _json(module)
            for key in ("out_features", "word_embedding_dimension", "embedding_dimension"):
                if key in content:
                    return int(content[key])
        hidden = _json(self.path / "config.json").get("hidden_size")
        return int(hidden) if hidden else None

    @property
    def max_tokens(self) -> int | None:
        """How many tokens it reads, special tokens included, where its configuration says so."""
        limit = _json(self.path / "sentence_bert_config.json").get("max_seq_length")
        limit = limit or _json(self.path / "config.json").get("max_position_embeddings")
        return int(limit) if limit else None

    @property
    def distance(self) -> Distance:
        """How its vectors are compared, as its configuration says."""
        said = _json(self.path / "config_sentence_transformers.json").get("similarity_fn_name")
        return DISTANCES.get(str(said), Distance.COSINE)

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
