"""Hostile inputs: filters that leave their place, rights that nobody gave, values that nobody expects."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import click

from bench.attacks import Group, Outcome, execute, tried
from bench.corpus import private_server
from pgneural.cli.output import print_table

MODULES = ("filters", "rights", "values")


def groups(names: Sequence[str] = MODULES) -> list[Group]:
    """Return the groups of inputs."""
    return [importlib.import_module(f"bench.attacks.{name}").GROUP for name in names]


def trial(
    every: int = 1, names: Sequence[str] = MODULES, tell: Callable[[str], None] = lambda _: None
) -> list[Outcome]:
    """Try every so many-th input of each group on a server of its own."""
    with private_server() as server:
        execute(server.start(), "ALTER SYSTEM SET fsync = off")
        execute(server.start(), "SELECT pg_reload_conf()")
        return [tried(group, server, every, tell) for group in groups(names)]


@click.command("attack")
@click.option("--group", "names", multiple=True, type=click.Choice(MODULES), help="Only these groups.")
@click.option("--every", default=1, show_default=True, help="Try every so many-th input.")
def command(names: tuple[str, ...], every: int) -> None:
    """Try hostile inputs and count their effects; none is expected, and controls without the guard must have one."""
    outcomes = trial(every, names or MODULES, click.echo)
    for outcome in outcomes:
        for name, effects in outcome.controls.items():
            if not effects:
                click.echo(f"{outcome.group}: control without an effect: {name}")
    rows = [(o.group, o.inputs, len(o.effects), "yes" if o.trusted else "NO") for o in outcomes]
    total = ("all", sum(o.inputs for o in outcomes), sum(len(o.effects) for o in outcomes), "")
    print_table(("group", "inputs", "effects", "control works"), [*rows, total])
    raise SystemExit(0 if all(o.trusted and not o.effects for o in outcomes) else 1)
