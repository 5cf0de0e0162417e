"""Filters over what is known of files, as options: ``--type``, ``--path``, ``--since``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from pgneural.cli.options import Option

F = TypeVar("F", bound=Callable[..., Any])

SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d)?)?)?)?")


def file_options(command: F) -> F:
    """Add the options; the command gets them as ``types``, ``paths_like`` and ``since``."""
    types = click.option(
        "--type",
        "types",
        multiple=True,
        metavar="SUFFIX",
        help="The suffix of the files that documents came from, for example pdf. Repeat the option for several.",
        cls=Option,
    )
    paths = click.option(
        "--path",
        "paths_like",
        multiple=True,
        metavar="PATTERN",
        help="A pattern of the paths of these files, for example 'notes/'. Repeat the option for several.",
        cls=Option,
    )
    since = click.option(
        "--since",
        callback=_moment,
        metavar="DATE",
        help="The first day, in UTC, on which these files were changed last, for example 2026-01-31 or 2026-01.",
        cls=Option,
    )
    return types(paths(since(command)))


def file_filter(types: tuple[str, ...], paths_like: tuple[str, ...], since: str | None) -> tuple[str, dict[str, str]]:
    """Return an SQL predicate over documents, empty where no option is given, and its parameters."""
    suffixes = {f"pgneural_type_{at}": each.lower().removeprefix(".") for at, each in enumerate(types)}
    patterns = {f"pgneural_path_{at}": path_pattern(each) for at, each in enumerate(paths_like)}
    parts = [
        " OR ".join(f"metadata->>'suffix' = :{name}" for name in suffixes),
        " OR ".join(f"metadata->>'path' ~ :{name}" for name in patterns),
        "metadata->>'modified' >= :pgneural_since" if since else "",
    ]
    values = {**suffixes, **patterns, **({"pgneural_since": since} if since else {})}
    return " AND ".join(f"({part})" for part in parts if part), values


def both(where: str | tuple[str, Mapping[str, str]] | None, more: tuple[str, dict[str, str]]) -> Any:
    """Return one filter that both a predicate of the user's and another one pass."""
    if not more[0]:
        return where
    text, values = where if isinstance(where, tuple) else (where, {})
    return f"({text}\n) AND {more[0]}" if text else more[0], {**values, **more[1]}


def path_pattern(pattern: str) -> str:
    """Return a pattern of paths as a regular expression of PostgreSQL.

    ``*`` and ``?`` stay in a name, ``**`` goes through folders; a pattern that is not absolute begins at any folder.
    """
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern + "**" if pattern.endswith("/") else pattern)
    start = "^" if pattern.startswith("/") else "(?:^|/)"
    return start + "".join(wild.get(part) or re.escape(part) for part in parts) + "$"


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not SINCE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no date; write 2026, 2026-01, 2026-01-31 or 2026-01-31T12:00")
    return value
