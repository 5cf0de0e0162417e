"""Promises that no single module can keep alone."""

from __future__ import annotations

import inspect

import pgneural
from pgneural import errors


def test_public_names_are_sorted_and_documented() -> None:
    assert pgneural.__all__ == sorted(pgneural.__all__, key=lambda name: (not name.isupper(), name))
    assert all(inspect.getdoc(getattr(pgneural, name)) for name in pgneural.__all__)


def test_error_tree_names_every_error() -> None:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, errors.PgneuralError):
            assert name in (errors.__doc__ or "")
            assert error.__doc__
