"""Which space of a search answers, for a client that may have been opened before a switch.

A query is always encoded by the encoder of the space that answers it. After a switch the client goes on with the space
that served, which is kept in step with the rows, until it has loaded the encoder of the other: nobody waits for that.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from pgneural.encoders.permitted import permitted
from pgneural.printable import logger as logger_of
from pgneural.store.catalog import chunks_of, dropped, require_encoder, space_of
from pgneural.store.schema import Space
from pgneural.types import Encoder

logger = logger_of(__name__)

HERD_SECONDS = 3.0
"""After a switch clients make the other space ready at some moment of so long: all at once would take the processors
from their searches."""


class Serving:
    """The space that a client searches; its threads share one.

    Attributes:
        space: It.
        waiting: Whether another serves already, but its encoder is not loaded yet.

    Args:
        space: The one that served when the client was opened.
        encoder: Makes its encoder.
    """

    def __init__(self, space: Space, encoder: Callable[[], Encoder]) -> None:
        self.space, self._first, self._make, self.waiting = space, space.id, encoder, False
        self._encoders: dict[int, Encoder] = {}
        self._chunks: dict[int, sa.Table] = {}
        self._making, self._turning = threading.Lock(), threading.RLock()
        self._preparing: tuple[int, threading.Thread] | None = None

    @property
    def state(self) -> tuple[int, bool]:
        """The id of the space, and `waiting`: what a search found is good if this was the same before and after."""
        return self.space.id, self.waiting

    @property
    def encoder(self) -> Encoder:
        """The encoder of the space; loading it may take seconds.

        Raises:
            EncoderMismatch: The encoder of this name has another revision here.
        """
        return self._encoder_of(self.space)

    def _encoder_of(self, space: Space) -> Encoder:
        """Return an encoder, which stays at hand: a space that has served may serve again."""
        if space.id == self._first:
            with self._making:
                encoder = self._encoders.get(space.id) or self._made(space, self._make())
        else:
            encoder = self._encoders.get(space.id) or self._made(space, permitted(space.encoder, **space.options))
        return encoder

    def _made(self, space: Space, encoder: Encoder) -> Encoder:
        if space.revision:
            require_encoder(space, encoder)
        self._encoders[space.id] = encoder
        return encoder

    @property
    def chunks(self) -> sa.Table:
        """The chunk table of a collection."""
        return self.chunks_of(self.space)

    def chunks_of(self, space: Space) -> sa.Table:
        """Return the chunk table of a space, the same every time."""
        if space.id not in self._chunks:
            self._chunks[space.id] = chunks_of(space)
        return self._chunks[space.id]

    def moved(self, connection: sa.Connection, serving: Space | None, prepare: Callable[[Space], None]) -> bool:
        """Look at the space that serves now; return whether the search has to be made again.

        Args:
            connection: Where.
            serving: The space that serves.
            prepare: Makes ready what a search of it needs besides its encoder.

        Raises:
            UnknownCollection: The search was dropped, or dropped and made anew.
        """
        searched = self.space
        same = serving is not None and serving.id == searched.id
        there = same or self.require_there(connection, serving)
        assert serving is not None
        with self._turning:
            if self.space.id != searched.id:
                return True  # another thread was quicker
            if same:
                self.turn_to(self.space)  # perhaps it was switched back before the other was there
                return False
            if there and not self._ready(serving, prepare):
                before, self.waiting = self.waiting, True
                return not before
            self.turn_to(serving)
            return True

    def require_there(self, connection: sa.Connection, serving: Space | None) -> bool:
        """Return whether the space that is searched is there still.

        Raises:
            UnknownCollection: The search was dropped, or dropped and made anew.
        """
        there = space_of(connection, self.space.id) is not None
        if serving is None or (not there and serving.switched_at is None):
            raise dropped(self.space)
        return there

    @property
    def prepared(self) -> bool:
        """Whether what was waited for is there."""
        preparing = self._preparing
        return self.waiting and preparing is not None and not preparing[1].is_alive()

    def _ready(self, serving: Space, prepare: Callable[[Space], None]) -> bool:
        """Whether all is there to search another space; if not, a thread sees to it."""
        if self._preparing is None or self._preparing[0] != serving.id:
            thread = threading.Thread(target=self._prepare, args=(serving, prepare), daemon=True)
            thread.start()
            self._preparing = serving.id, thread
        return not self._preparing[1].is_alive()

    def _prepare(self, serving: Space, prepare: Callable[[Space], None]) -> None:
        time.sleep(random.uniform(0, HERD_SECONDS))
        try:
            self._encoder_of(serving)
            prepare(serving)
        except Exception as error:
            logger.warning("%s is not prepared, and the next search will take longer: %s", serving.name, error)

    def turn_to(self, serving: Space) -> None:
        """Search this space from now on."""
        with self._turning:
            self.space, self.waiting, self._preparing = serving, False, None

    def seen(self, space: Space | None) -> Space:
        """Take over what the catalog says by now of the space that is searched, and return it."""
        with self._turning:
            if space is not None and space.id == self.space.id:
                self.space = space
            return self.space
