"""Heavy packages: what needs one imports it when it is asked to, and names it where it is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from pgneural.errors import MissingExtra


@contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """Say so where an import within the block finds nothing.

    Args:
        what: What is asked for, as the subject of a sentence.
        extra: The extra of pgneural that brings it.

    Raises:
        MissingExtra: With the command.
    """
    try:
        yield
    except MissingExtra:
        raise
    except ImportError as error:
        lacking = error.name or extra
        remedy = f"run: pip install 'pgneural[{extra}]'"
        raise MissingExtra(f"{what} needs {lacking}, which is not installed; {remedy}") from error


def require(what: str, module: str, extra: str) -> None:
    """Do the same for what is imported later, or by another process."""
    with needed(what, extra):
        if importlib.util.find_spec(module) is None:
            raise ImportError(name=module)
