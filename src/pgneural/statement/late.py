"""Late interaction: the rows of a ranking, compared with the query token by token (sql/30_late_interaction.sql)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY


def late_interaction(tokens: sa.Table, query: str, keys: Sequence[Any]) -> sa.Select[Any]:
    """Return the statement that scores rows; columns: the key of the row and ``score``, that of its best chunk.

    Args:
        tokens: The table of the tokens' vectors.
        query: The tokens of the query, as PostgreSQL reads an array of halfvec.
        keys: Of the rows.
    """
    asked = sa.cast(sa.cast(query, sa.Text), ARRAY(HALFVEC()))
    score = sa.func.max(sa.func.neural.max_sim(tokens.c.embedding, asked)).label("score")
    wanted = tokens.c.source_id == sa.any_(sa.literal(list(keys), ARRAY(sa.BigInteger)))
    return sa.select(tokens.c.source_id, score).where(wanted).group_by(tokens.c.source_id)
