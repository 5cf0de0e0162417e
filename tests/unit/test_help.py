"""What the command line says of itself: every option and command in a sentence that stands alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from pgneural.cli import main

FRAGMENTS = re.compile(r"^(Of|For|Also|Instead|Even|On|By|What|How many of|The same|Only these|Other|Another)\b")
DEFAULT = re.compile(r"\s*\[default: .*\]$")


def commands(group: click.Group, name: str = "pgneural") -> Iterator[tuple[str, click.Command]]:
    yield name, group
    for each, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {each}")
        else:
            yield f"{name} {each}", command


EVERY = dict(commands(main))


@pytest.mark.parametrize("name", EVERY)
def test_every_option_and_command_is_explained_in_sentences(name: str) -> None:
    command = EVERY[name]
    said = {"": (command.help or "").split("\n\n")[0]}
    said |= {
        parameter.opts[0]: DEFAULT.sub("", parameter.help or "")
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }
    for what, text in said.items():
        assert text, f"{name} {what} has no help"
        assert text.rstrip().endswith((".", "!")), f"{name} {what}: {text}"
        assert not FRAGMENTS.match(text), f"{name} {what}: {text}"
