"""Heavy packages: what needs one imports it when it is asked to, and names it where it is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from pgneural.errors import MissingExtra


@contextmanager
def needed(what: str, package: str) -> Iterator[None]:
    """Say so where an import within the block finds nothing.

    Args:
        what: What is asked for, as the subject of a sentence.
        package: What pip installs.

    Raises:
        MissingExtra: With the command.
    """
    try:
        yield
    except ImportError as error:
        lacking = error.name or package
        raise MissingExtra(f"{what} needs {lacking}, which is not installed; run: pip install {package}") from error


def require(what: str, module: str, package: str) -> None:
    """Do the same for what another process imports."""
    with needed(what, package):
        if importlib.util.find_spec(module) is None:
            raise ImportError(name=module)
