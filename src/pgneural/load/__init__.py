"""Reading documents: paths in, records out, one at a time.

::

    walk --> formats --> prose, csvfile, jsonl --> records
                           |
                           +--> extraction --> extractors, in a process apart

``walk`` finds the files, ``formats`` says what reads each, ``lines`` reads within bounds; what needs a parser is read
in a process apart. What cannot be read comes out as a `BadRecord` among the records, so that one bad file or line
never hides the rest.
"""

from pgneural.load.formats import FORMATS
from pgneural.load.paths import Reading, read
from pgneural.load.question import is_readable, read_question
from pgneural.load.records import Fields, check, from_mapping, mistyped
from pgneural.load.selection import Selection

__all__ = [
    "FORMATS",
    "Fields",
    "Reading",
    "Selection",
    "check",
    "from_mapping",
    "is_readable",
    "mistyped",
    "read",
    "read_question",
]
