"""The application's own ``env.py``: the last line but two is the only one about search."""

from typing import Any

from alembic import context

config = context.config
options: dict[str, Any] = {
    "target_metadata": config.attributes.get("metadata"),
    "include_schemas": True,
    "include_name": lambda name, kind, _: kind != "schema" or name in (None, "shop"),
    "autogenerate_plugins": ["alembic.autogenerate.*", "pgneural.migrate"],
    **config.attributes.get("options", {}),
}
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with config.attributes["engine"].connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
