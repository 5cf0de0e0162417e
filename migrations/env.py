"""Runs our revisions over the connection that `pgneural.migrate` hands in.

For writing a revision: ``PGNEURAL_DATABASE_URL=… alembic revision --autogenerate -m "…"``.
"""

import os

from alembic import context

from pgneural.migrate import include_object
from pgneural.store.engine import create_engine
from pgneural.store.schema import SCHEMA, Catalog


def run(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Catalog.metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=lambda name, type_, _: type_ != "schema" or name == SCHEMA,
        include_object=include_object,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if given := context.config.attributes.get("connection"):
    run(given)
else:
    with create_engine(os.environ["PGNEURAL_DATABASE_URL"]).begin() as own:
        run(own)
