"""Saying a search: one ``Select`` that chooses its own strategy. Nothing here executes.

``target`` says what is searched, ``probe`` looks how many rows pass the filter, ``vector_leg`` and ``lexical_leg``
are the legs, ``single`` asks one of them, ``fusion`` joins several, and `Query` chooses. Each leg applies the filter
itself, and ends in one CTE of its own name with one row for each source row. The statement of a hybrid search reads,
CTE by CTE::

    settings                         how far an index scan may go; local to the transaction
    probe, passing                   the keys of the rows that pass the filter, up to a bound, and their number
    asked, query                     the query's vector, and what the vector index keeps of one
    many                             whether there are more rows than would be compared one by one
    near, exact, fallback            semantic candidates (see `vector_leg`)
    semantic                         the nearest chunk of each row
    question                         the words of the query as a tsquery and as BM25 weights
    few_words, rare_words, more_words lexical candidates (see `lexical_leg`)
    lexical                          the best of them
    pool                             the best rows of all legs
    scored, fused                    all scores of every row of the pool, and their sum
"""

from pgneural.statement.cache import StatementCache
from pgneural.statement.facets import facets, total
from pgneural.statement.fusion import RRF, Boost, Fusion, WeightedSum
from pgneural.statement.late import late_interaction, one_of
from pgneural.statement.query import Query
from pgneural.statement.single import Threshold
from pgneural.statement.target import LEXICAL, Page, Target, Vectors, about_as_many
from pgneural.statement.vector_leg import Aggregate

__all__ = [
    "LEXICAL",
    "RRF",
    "Aggregate",
    "Boost",
    "Fusion",
    "Page",
    "Query",
    "StatementCache",
    "Target",
    "Threshold",
    "Vectors",
    "WeightedSum",
    "about_as_many",
    "facets",
    "late_interaction",
    "one_of",
    "total",
]
