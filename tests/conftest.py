"""Fixtures by topic: ``fixtures/postgres.py`` for servers and databases, ``fixtures/models.py`` for small models,
``fixtures/orm.py`` for mapped classes, ``fixtures/tables.py`` for tables of people without Python.

Files that take long go first: the processes of `make test` take one file after the other, and end together only if what
is left for the end is short.
"""

from collections.abc import Iterator

import pytest

pytest_plugins = [f"tests.fixtures.{topic}" for topic in ("postgres", "models", "data", "orm", "tables", "roles")]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a program remembers of a machine is not written to the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


LONG_FIRST = (
    "acceptance/test_faults.py",
    "acceptance/test_kill.py",
    "integration/test_hard_cases.py",
    "docs/test_docs.py",
    "recall/test_recall.py",
    "acceptance/test_sqlalchemy_20.py",
    "unit/test_encoders.py",
    "acceptance/test_embedded.py",
    "acceptance/test_wheel.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first, in this order."""
    places = {file: place for place, file in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))
