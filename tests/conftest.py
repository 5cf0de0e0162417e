"""Fixtures by topic: ``fixtures/postgres.py`` for servers and databases, ``fixtures/models.py`` for small models,
``fixtures/orm.py`` for mapped classes, ``fixtures/tables.py`` for tables of people without Python."""

pytest_plugins = [f"tests.fixtures.{topic}" for topic in ("postgres", "models", "data", "orm", "tables")]
