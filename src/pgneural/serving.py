"""Which space of a search answers, for a client that may have been opened before a switch.

A query is always encoded by the encoder of the space that answers it. After a switch the client goes on with the space
that served, which is kept in step with the rows, until it has loaded the encoder of the other: nobody waits for that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import sqlalchemy as sa

from pgneural.encoders.shared import at_hand, shared
from pgneural.store.catalog import chunks_of, dropped, require_encoder, space_of
from pgneural.store.schema import Space
from pgneural.types import Encoder


class Serving:
    """The space that a client searches.

    Attributes:
        space: It.
        waiting: Whether another serves already, but its encoder is not loaded yet.

    Args:
        space: The one that served when the client was opened.
        encoder: Makes its encoder.
    """

    def __init__(self, space: Space, encoder: Callable[[], Encoder]) -> None:
        self.space, self._first, self._make, self.waiting = space, space.id, encoder, False

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder of the space; loading it may take seconds.

        Raises:
            EncoderMismatch: The encoder of this name has another revision here.
        """
        first = self.space.id == self._first
        encoder = self._make() if first else shared(self.space.encoder, self.space.options)
        if self.space.revision:
            require_encoder(self.space, encoder)
        return encoder

    @functools.cached_property
    def chunks(self) -> sa.Table:
        """The chunk table of a collection."""
        return chunks_of(self.space)

    def moved(self, connection: sa.Connection, serving: Space | None) -> bool:
        """Look at the space that serves now; return whether the search has to be made again.

        Raises:
            UnknownCollection: The search was dropped, or dropped and made anew.
        """
        if serving is not None and serving.id == self.space.id:
            return False
        there = space_of(connection, self.space.id) is not None
        if serving is None or (not there and serving.switched_at is None):
            raise dropped(self.space)
        if there and not at_hand(serving.encoder, serving.options):
            before, self.waiting = self.waiting, True
            return not before
        self.turn_to(serving)
        return True

    def turn_to(self, serving: Space) -> None:
        """Search this space from now on."""
        if serving.id != self.space.id:
            for name in ("encoder", "chunks"):
                self.__dict__.pop(name, None)
        self.space, self.waiting = serving, False
