"""Search in your own mapped classes: declare it in one line, search with ordinary statements.

``declaration`` checks what a `Searchable` says, ``searchable`` joins it to its class, ``binding`` is what the class
has then, ``query`` is one search, ``entities`` turns rows into hits, and ``inline`` encodes what a session writes.
"""

from pgneural.orm.binding import SearchBinding
from pgneural.orm.query import SearchQuery
from pgneural.orm.searchable import Searchable

__all__ = ["SearchBinding", "SearchQuery", "Searchable"]
