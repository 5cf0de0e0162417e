"""The benchmarks as commands."""

from __future__ import annotations

import click

from bench import (
    attack,
    bm25,
    content,
    encode,
    errors,
    faults,
    filter,
    hybrid,
    indexes,
    ingest,
    kill,
    loading,
    orm,
    overhead,
    pooler,
    search,
    start,
    switch,
    sync,
)


@click.group()
def main() -> None:
    """Print one benchmark's figures."""


for module in (
    *(start, encode, ingest, kill, search, filter, indexes, bm25, hybrid, overhead, orm, pooler, errors),
    *(sync, switch, loading, faults, attack, content),
):
    main.add_command(module.command)

if __name__ == "__main__":
    main()
