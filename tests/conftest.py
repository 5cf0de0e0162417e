"""Fixtures by topic: ``fixtures/postgres.py`` for servers and databases, ``fixtures/models.py`` for small models."""

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.models", "tests.fixtures.data"]
