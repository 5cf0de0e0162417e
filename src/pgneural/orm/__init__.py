"""Search in your own mapped classes: declare it in one line, search with ordinary statements.

``declaration`` checks what a `Searchable` says, ``searchable`` joins it to its class, ``bound`` is what the class then
has, ``query`` is one search, ``entities`` turns rows into hits, and ``inline`` encodes what a session writes.
"""

from pgneural.orm.bound import BoundSearch
from pgneural.orm.query import SearchQuery
from pgneural.orm.searchable import Searchable

__all__ = ["BoundSearch", "SearchQuery", "Searchable"]
