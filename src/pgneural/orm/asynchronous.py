"""Sessions of asyncio, told from others without importing what they alone need."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pgneural.errors import MissingExtra

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from typing_extensions import TypeIs


def asynchronous(session: object) -> TypeIs[AsyncSession | AsyncConnection]:
    """Whether a session or connection is one of asyncio: then what it is given to returns something to await.

    Raises:
        MissingExtra: It is, but greenlet is not installed.
    """
    theirs = sys.modules.get("sqlalchemy.ext.asyncio")  # who has such a session has imported it
    if theirs is None or not isinstance(session, (theirs.AsyncSession, theirs.AsyncConnection)):
        return False
    if find_spec("greenlet") is None:
        raise MissingExtra("an asynchronous session needs greenlet; run: pip install 'sqlalchemy[asyncio]'")
    return True
