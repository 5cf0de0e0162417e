"""The benchmarks as commands."""

from __future__ import annotations

import click

from bench import encode, errors, ingest, kill, search


@click.group()
def main() -> None:
    """Print one benchmark's figures."""


for module in (encode, ingest, kill, search, errors):
    main.add_command(module.command)

if __name__ == "__main__":
    main()
