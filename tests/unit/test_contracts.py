"""Promises that no single module can keep alone."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator

import pytest

import pgneural
from pgneural import errors
from pgneural.pipeline import background


def test_public_names_are_sorted_and_documented() -> None:
    assert pgneural.__all__ == sorted(pgneural.__all__)
    assert all(inspect.getdoc(getattr(pgneural, name)) for name in pgneural.__all__)


def test_error_tree_names_every_error() -> None:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, errors.PgneuralError):
            assert name in (errors.__doc__ or "")
            assert error.__doc__


def test_background_hands_on_items_and_errors() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyError("lost")

    received = []
    with pytest.raises(KeyError, match="lost"):
        for item in background(items()):
            received.append(item)
    assert received == [0, 1, 2]


def test_background_stops_with_its_consumer() -> None:
    produced = []

    def items() -> Iterator[int]:
        for number in range(1000):
            produced.append(number)
            yield number

    for item in background(items()):
        if item == 3:
            break
    deadline = time.monotonic() + 5
    while any(thread.name == "pgneural-ahead" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(produced) < 10
