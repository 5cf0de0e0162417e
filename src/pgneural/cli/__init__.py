"""The command line: parse, call one library function, print.

Only this package reads the environment. Errors that the user can mend are one line on standard error and
exit status 1; ``--debug`` shows the traceback.
"""

from pgneural.cli.commands import main

__all__ = ["main"]
