"""Saying a search: one ``Select`` that chooses its own strategy. Nothing here executes.

``target`` says what is searched, ``probe`` looks how many rows pass the filter, ``semantic_leg`` and
``lexical_leg`` are the legs, ``fusion`` joins them, and `Query` chooses. Each leg applies the filter itself, and
ends in one CTE of its own name with one row for each source row. The statement of a hybrid search reads, CTE
by CTE::

    settings                         how far an index scan may go; local to the transaction
    probe, passing                   the keys of the rows that pass the filter, up to a bound, and their number
    near, exact, fallback            semantic candidates (see `semantic`)
    semantic                         the nearest chunk of each row
    question                         the words of the query as a tsquery and as BM25 weights
    few_words, rare_words, more_words lexical candidates (see `lexical`)
    lexical                          the best of them
    pool                             the best rows of both legs
    scored, fused                    both scores of every row of the pool, and their sum
"""

from pgneural.statement.facets import facets
from pgneural.statement.fusion import RRF, Fusion, WeightedSum, hybrid
from pgneural.statement.lexical_leg import lexical
from pgneural.statement.query import Query
from pgneural.statement.semantic_leg import semantic
from pgneural.statement.target import Page, Target

__all__ = ["RRF", "Fusion", "Page", "Query", "Target", "WeightedSum", "facets", "hybrid", "lexical", "semantic"]
