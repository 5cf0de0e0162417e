"""Reading documents: paths in, records out, one at a time.

``walk`` finds the files, ``lines`` reads them within bounds, and each format has a module that turns one
file into records; HTML is parsed in a process apart (``pages``). What cannot be read comes out as a `BadRecord`
among the records, so that one bad line never hides the rest.
"""

from pgneural.load.paths import FORMATS, Reading, read
from pgneural.load.records import Fields, check, from_mapping, mistyped

__all__ = ["FORMATS", "Fields", "Reading", "check", "from_mapping", "mistyped", "read"]
