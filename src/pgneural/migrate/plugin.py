"""What Alembic finds by the entry point ``pgneural.migrate``.

Alembic loads plugins while it is itself half imported, so everything that needs more of it comes when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult


def setup(plugin: Plugin) -> None:
    """Register the operations, and what compares a database with the models."""
    from alembic.util import DispatchPriority

    import pgneural.migrate.operations
    import pgneural.migrate.space_operations  # noqa: F401  # which registers them

    plugin.add_autogenerate_comparator(
        _prepare, "schema", "pgneural.prepare", qualifier="postgresql", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(
        _compare, "schema", "pgneural.compare", qualifier="postgresql", priority=DispatchPriority.LAST
    )


def _prepare(context: Any, _: Any, __: Any) -> PriorityDispatchResult:
    """Before tables are compared: have pgvector's types known and written with their import."""
    from alembic.util import PriorityDispatchResult

    from pgneural.migrate import render

    render.register()
    render.import_vector_types(context)
    render.know_vector_types(context)
    return PriorityDispatchResult.CONTINUE


def _compare(context: Any, upgrade: Any, schemas: Any) -> PriorityDispatchResult:
    """After tables are compared: put searches and vector indexes in the place of what Alembic makes of them."""
    from alembic.util import PriorityDispatchResult

    from pgneural.migrate.compare import compare

    compare(context, upgrade, schemas)
    return PriorityDispatchResult.CONTINUE
