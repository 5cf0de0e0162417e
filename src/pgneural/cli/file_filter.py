"""Filters over what is known of files, as options: ``--type``, ``--path``, ``--since``."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click
import sqlalchemy as sa

from pgneural.cli.options import Option
from pgneural.filter import Filter, condition
from pgneural.store.schema import DOCUMENTS

F = TypeVar("F", bound=Callable[..., Any])

SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d)?)?)?)?")


def file_options(command: F) -> F:
    """Add the options; the command gets them as ``types``, ``paths_like`` and ``since``."""
    types = click.option(
        "--type",
        "types",
        multiple=True,
        metavar="SUFFIX",
        help="The suffix of documents that are one file each, for example pdf. Repeat the option for several.",
        cls=Option,
    )
    paths = click.option(
        "--path",
        "paths_like",
        multiple=True,
        metavar="PATTERN",
        help="A pattern of the paths of documents that are one file each, for example 'notes/'."
        " Repeat the option for several.",
        cls=Option,
    )
    since = click.option(
        "--since",
        callback=_moment,
        metavar="DATE",
        help="The day, in UTC, since which documents that are one file each were changed, for example 2026-01-31"
        " or 2026-01.",
        cls=Option,
    )
    return types(paths(since(command)))


def file_filter(types: tuple[str, ...], paths_like: tuple[str, ...], since: str | None) -> list[sa.ColumnElement[bool]]:
    """Return the conditions over documents that the options say."""
    metadata = DOCUMENTS.c.metadata
    conditions = []
    if types:
        conditions.append(metadata["suffix"].astext.in_([each.lower().removeprefix(".") for each in types]))
    if paths_like:
        path = metadata["path"].astext
        conditions.append(sa.or_(*(path.regexp_match(path_pattern(each)) for each in paths_like)))
    if since:
        conditions.append(metadata["modified"].astext >= since)
    return conditions


def both(where: Filter | None, more: list[sa.ColumnElement[bool]]) -> Filter | None:
    """Return one filter that a row passes if it passes a filter of the user's and some conditions."""
    if not more:
        return where
    given = condition(where)
    return sa.and_(*more) if given is None else sa.and_(given, *more)


def path_pattern(pattern: str) -> str:
    """Return a pattern of paths as a regular expression of PostgreSQL.

    ``*`` and ``?`` stay in a name, ``**`` goes through folders; a pattern that is not absolute begins at any folder,
    and what is below a folder that matches does, too.
    """
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pattern = re.sub(r"^(\./)+", "", pattern)
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.rstrip("/"))
    start = "^" if pattern.startswith("/") else "(?:^|/)"
    return start + "".join(wild.get(part) or re.escape(part) for part in parts) + "(?:/.*)?$"


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _is_moment(value):
        raise click.BadParameter(f"{value!r} is no date; write 2026, 2026-01, 2026-01-31 or 2026-01-31T12:00")
    return value


def _is_moment(value: str) -> bool:
    """Whether a text is a date, or the beginning of one."""
    try:
        datetime.fromisoformat(value + "2000-01-01T00:00:00"[len(value) :])
    except ValueError:
        return False
    return SINCE.fullmatch(value) is not None
