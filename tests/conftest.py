"""Fixtures by topic: ``fixtures/postgres.py`` for servers and databases, ``fixtures/models.py`` for small models,
``fixtures/orm.py`` for mapped classes."""

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.models", "tests.fixtures.data", "tests.fixtures.orm"]
