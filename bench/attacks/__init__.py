"""Hostile inputs by group: what each does, and how it is seen that it had an effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgneural.store.embedded import EmbeddedServer

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Input:
    """One hostile input, or one control.

    Attributes:
        name: What it is, on one line.
        run: Tries it in a place; returns its effects, each as one line.
    """

    name: str
    run: Callable[[Any], Sequence[str]]


@dataclass(frozen=True)
class Group:
    """Inputs that are tried in one place.

    Attributes:
        name: What they have in common.
        place: Makes the place: databases, roles, files.
        inputs: The hostile ones; none of them may have an effect.
        controls: The same without the guard; each of them must have one.
    """

    name: str
    place: Callable[[EmbeddedServer], AbstractContextManager[Any]]
    inputs: Sequence[Input]
    controls: Sequence[Input]


@dataclass
class Outcome:
    """What came of a group.

    Attributes:
        group: Its name.
        inputs: How many were tried.
        effects: Those that had an effect, and which.
        controls: What each control did.
    """

    group: str
    inputs: int = 0
    effects: dict[str, Sequence[str]] = field(default_factory=dict)
    controls: dict[str, Sequence[str]] = field(default_factory=dict)

    @property
    def trusted(self) -> bool:
        """Whether every control had an effect, so that one would have been seen."""
        return bool(self.controls) and all(self.controls.values())


def tried(group: Group, server: EmbeddedServer, every: int, tell: Callable[[str], None]) -> Outcome:
    """Try every so many-th input of a group, and all its controls; tell at once what had an effect."""
    chosen = group.inputs[::every]
    outcome = Outcome(group.name, len(chosen))
    with group.place(server) as place:
        for one in chosen:
            if effects := one.run(place):
                outcome.effects[one.name] = effects
                tell(f"{group.name}: {one.name} → {'; '.join(effects)}")
        outcome.controls = {one.name: one.run(place) for one in group.controls}
    return outcome


def new_database(server: EmbeddedServer, template: str = "template1") -> str:
    """Make a database on the server; return its URL."""
    name = f"attacked_{next(_numbers)}"
    with psycopg.connect(server.start(), autocommit=True) as admin:
        statement = "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy"
        admin.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(template)))
    return make_conninfo(server.start(), dbname=name)


def execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement in a connection of its own; return its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode("utf-8", "surrogatepass"), values or None)
        return cursor.fetchall() if cursor.description else []


def refused(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement that the server may refuse; return its rows."""
    try:
        return execute(url, statement)
    except psycopg.Error:
        return []


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Say which of the things that were watched are not as before."""
    for what in before.keys() | after.keys():
        if before.get(what) != after.get(what):
            yield f"{what} changed"
