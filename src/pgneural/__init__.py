"""Neural search inside the PostgreSQL you already have.

>>> db = embedded("~/.local/share/pgneural")              # or connect("postgresql://…")
>>> notes = db.collection("notes")
>>> notes.index("notes/")
>>> for hit in notes.search("how do vaccines work", limit=3):
...     print(hit.rank, round(hit.score, 3), hit.entity.title, hit.chunk.snippet())
"""

from pgneural.collection import Collection
from pgneural.database import Database, connect, embedded
from pgneural.errors import PgneuralError
from pgneural.evaluation import Evaluation, ModeResult, evaluate
from pgneural.explain import Explanation, Stage
from pgneural.load import Selection
from pgneural.orm import Searchable
from pgneural.query import Query
from pgneural.report import Report
from pgneural.rerank import CrossEncoderReranker, LateInteraction, Rerank
from pgneural.search import Hit, HitChunk, Hits
from pgneural.statement import RRF, Boost, WeightedSum
from pgneural.store.columns import HALFVEC, VECTOR
from pgneural.store.schema import Document
from pgneural.store.vectors import VectorIndex
from pgneural.table import TableSearch
from pgneural.types import BadRecord, Chunk, Distance, Encoder, Modality, Mode, Record

__all__ = [
    "HALFVEC",
    "RRF",
    "VECTOR",
    "BadRecord",
    "Boost",
    "Chunk",
    "Collection",
    "CrossEncoderReranker",
    "Database",
    "Distance",
    "Document",
    "Encoder",
    "Evaluation",
    "Explanation",
    "Hit",
    "HitChunk",
    "Hits",
    "LateInteraction",
    "Modality",
    "Mode",
    "ModeResult",
    "PgneuralError",
    "Query",
    "Record",
    "Report",
    "Rerank",
    "Searchable",
    "Selection",
    "Stage",
    "TableSearch",
    "VectorIndex",
    "WeightedSum",
    "connect",
    "embedded",
    "evaluate",
]
