"""The operations that change the model of a search: another space beside the one that serves (``sql/48_spaces.sql``).

::

    op.create_space("articles", "search", "e5", encoder="intfloat/e5-small-v2", dimensions=384)
    op.switch_space("articles", "search", "e5")     a revision of its own, when the workers have filled it
    op.drop_space("articles", "search", "main")     and a last one, when there is no way back wanted

Each is one statement, so that Alembic can print it as a script. Autogenerate leaves a search alone while it has
several spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations, ops

from pgneural.store.engine import literal, quoted_table, sql_value


class _SpaceOp(ops.MigrateOperation):
    """One call of a function of ours.

    Attributes:
        function: Its name.
        source: The table.
        attribute: The name of the search.
        schema: Of the table.
        arguments: Its other arguments, by name.
    """

    def __init__(
        self, function: str, source: str, attribute: str, schema: str | None, arguments: Mapping[str, Any]
    ) -> None:
        self.function, self.source, self.attribute, self.schema = function, source, attribute, schema
        self.arguments = {name: value for name, value in arguments.items() if value is not None}

    @property
    def statement(self) -> str:
        """The statement."""
        relation = literal(quoted_table(self.source, self.schema)) + "::regclass"
        more = "".join(f", {name} => {sql_value(value)}" for name, value in self.arguments.items())
        return f"SELECT neural.{self.function}({relation}, {literal(self.attribute)}{more})"

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return it for ``compare_metadata``."""
        return self.function, self.source, self.attribute, self.arguments.get("name")


class CreateSpaceOp(_SpaceOp):
    """Make another space of a search."""

    @classmethod
    def create_space(
        cls,
        operations: Operations,
        source: str,
        attribute: str,
        name: str,
        *,
        schema: str | None = None,
        **changes: Any,
    ) -> None:
        """Make another space beside the one that serves; workers fill it.

        Args:
            operations: Of Alembic.
            source: The table.
            attribute: The name of the search.
            name: Of the space.
            schema: Of the table.
            **changes: What is to be otherwise: ``encoder``, ``dimensions``, ``options``, ``distance``, ``language``,
                ``max_tokens``, ``overlap``, ``title_boost``, ``storage``, ``vector_index`` (a mapping),
                ``rows_per_second``.
        """
        operations.invoke(cls("create_space", source, attribute, schema, {"name": name, **changes}))


class SwitchSpaceOp(_SpaceOp):
    """Have another space answer."""

    @classmethod
    def switch_space(
        cls,
        operations: Operations,
        source: str,
        attribute: str,
        name: str,
        *,
        schema: str | None = None,
        force: bool | None = None,
    ) -> None:
        """Have another space of a search answer from now on; an error where it is not ready, unless forced."""
        operations.invoke(cls("switch_space", source, attribute, schema, {"name": name, "force": force}))


class RollbackSpaceOp(_SpaceOp):
    """Go back."""

    @classmethod
    def rollback_space(cls, operations: Operations, source: str, attribute: str, *, schema: str | None = None) -> None:
        """Bring back the space that served before."""
        operations.invoke(cls("rollback_space", source, attribute, schema, {}))


class DropSpaceOp(_SpaceOp):
    """Drop a space."""

    @classmethod
    def drop_space(
        cls, operations: Operations, source: str, attribute: str, name: str, *, schema: str | None = None
    ) -> None:
        """Drop a space that does not serve; the one that serves takes the usual names of tables."""
        operations.invoke(cls("drop_space", source, attribute, schema, {"name": name}))


class AddVectorsOp(_SpaceOp):
    """Give a search extra vectors."""

    @classmethod
    def add_vectors(
        cls,
        operations: Operations,
        source: str,
        attribute: str,
        kind: str,
        *,
        encoder: str,
        dimensions: int,
        schema: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Give the chunks of a search extra vectors; workers make them.

        Args:
            operations: Of Alembic.
            source: The table.
            attribute: The name of the search.
            kind: ``sparse``, by a learned sparse encoder, or ``tokens``, by one of late interaction.
            encoder: The model: a folder or name, known to the workers.
            dimensions: Of its vectors: for ``sparse`` the size of its vocabulary.
            schema: Of the table.
            options: What the encoder is made with.
        """
        arguments = {"kind": kind, "encoder": encoder, "dimensions": dimensions, "options": options}
        operations.invoke(cls("add_vectors", source, attribute, schema, arguments))


class DropVectorsOp(_SpaceOp):
    """Drop extra vectors."""

    @classmethod
    def drop_vectors(
        cls, operations: Operations, source: str, attribute: str, kind: str, *, schema: str | None = None
    ) -> None:
        """Drop the extra vectors of a search, of one kind."""
        operations.invoke(cls("drop_vectors", source, attribute, schema, {"kind": kind}))


def _run(operations: Operations, operation: _SpaceOp) -> None:
    operations.execute(sa.text(operation.statement.replace(":", "\\:")))


for _name, _operation in (
    ("create_space", CreateSpaceOp),
    ("switch_space", SwitchSpaceOp),
    ("rollback_space", RollbackSpaceOp),
    ("drop_space", DropSpaceOp),
    ("add_vectors", AddVectorsOp),
    ("drop_vectors", DropVectorsOp),
):
    Operations.register_operation(_name)(_operation)
    Operations.implementation_for(_operation)(_run)
