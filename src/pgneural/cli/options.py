"""What commands share: options, the database they name, and how they fail."""

from __future__ import annotations

import functools
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import platformdirs
import psycopg
from click.core import ParameterSource
from sqlalchemy.exc import DBAPIError

from pgneural.cli.output import say
from pgneural.database import Database, connect, embedded
from pgneural.encoders.permitted import permit
from pgneural.errors import PgneuralError
from pgneural.printable import printable, tolerant_streams
from pgneural.store.embedded import EmbeddedServer

INTERRUPTED = 130
"""The shell's exit status of a command that Ctrl-C ended."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Target:
    """Which database a command works on: a named server, or the embedded one of a folder."""

    url: str | None
    data_dir: Path

    @property
    def server(self) -> EmbeddedServer:
        """The embedded server of the folder."""
        return EmbeddedServer(self.data_dir.expanduser().absolute())

    @contextmanager
    def open(self) -> Iterator[Database]:
        """Connect; the embedded server is started and its schema brought up to date."""
        database = connect(self.url) if self.url else embedded(self.data_dir)
        with database:
            yield database


class Failing(click.Group):
    """A group that turns errors into one line and an exit status, all of which can be printed."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        tolerant_streams()
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # what it ignores, as when it is interrupted, says nothing
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            try:
                return super().main(*args, **kwargs)
            except Exception:  # ours, or --debug
                say(traceback.format_exc().rstrip(), err=True)
                raise SystemExit(1) from None

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the subcommand."""
        with _usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        """Run the subcommand; what it raises on purpose becomes one line."""
        try:
            with _usage_errors():
                return super().invoke(context)
        except KeyboardInterrupt:
            say("Error: stopped; run the same command again to complete the work", err=True)
            raise SystemExit(INTERRUPTED) from None
        except (PgneuralError, DBAPIError, psycopg.Error) as error:
            if context.params.get("debug"):
                raise
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise click.ClickException(_encodable(printable(" ".join(str(cause).split())))) from error


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Make what click says of arguments printable, and tell how one can begin with a dash."""
    try:
        yield
    except click.ClickException as error:
        dashed = isinstance(error, click.NoSuchOption) and _takes_arguments(error.ctx)
        hint = " An argument that begins with a dash goes after -- (two dashes)." if dashed else ""
        vars(error)["message"] = _encodable(printable(error.message)) + hint
        raise


def _encodable(text: str) -> str:
    """Return a text as standard error can show it; click would send UTF-8 where the encoding is ASCII."""
    encoding = sys.stderr.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _takes_arguments(context: click.Context | None) -> bool:
    return context is not None and any(isinstance(each, click.Argument) for each in context.command.params)


def _show_warning(message: Warning | str, *_: Any) -> None:
    say(f"Warning: {message}", err=True)


class Option(click.Option):
    """An option whose help names its environment variable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"show_envvar": True, **kwargs})


def _database(help_suffix: str) -> Callable[[F], F]:
    return click.option(
        "--database",
        metavar="URL",
        envvar="PGNEURAL_DATABASE_URL",
        help=f"The URL of a PostgreSQL server.  [default: the embedded server]{help_suffix}",
        cls=Option,
    )


def _data_dir(**attributes: Any) -> Callable[[F], F]:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        envvar="PGNEURAL_DATA_DIR",
        help="The folder in which the embedded server stores its data.",
        cls=Option,
        **attributes,
    )


def _models(command: F) -> F:
    model = click.option(
        "--model",
        "models",
        multiple=True,
        metavar="NAME",
        envvar="PGNEURAL_MODEL",
        help="A model that this host may load when the database names it: a name, or a folder and all below it."
        " Repeat the option for several.",
        cls=Option,
    )
    trusted = click.option(
        "--trusted-model",
        "trusted",
        multiple=True,
        metavar="NAME",
        envvar="PGNEURAL_TRUSTED_MODEL",
        help="A model that this host may load together with the Python code that comes with it. Read that code first.",
        cls=Option,
    )
    return model(trusted(command))


def target_options(command: F) -> F:
    """Add ``--database`` and ``--data-dir``, which may stand before or after the subcommand, and permitted models."""

    @functools.wraps(command)
    @click.pass_context
    def run(context: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        del kwargs["database"], kwargs["data_dir"]
        permit(*kwargs.pop("models"))
        permit(*kwargs.pop("trusted"), trust_remote_code=True)
        url = _nearest(context, "database")
        folder = _nearest(context, "data_dir") or platformdirs.user_data_path("pgneural")
        return command(Target(url, folder), *args, **kwargs)

    return _models(_database("")(_data_dir()(run)))  # type: ignore[return-value]


def _nearest(context: click.Context, name: str) -> Any:
    """Return an option's value: from the command, from before the command, or else from the environment."""
    root = context.find_root()
    written = [c for c in (context, root) if c.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    return [*written, context][0].params.get(name)


root_options: Callable[[F], F] = lambda command: _database("")(_data_dir()(command))  # noqa: E731

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.", cls=Option)


def interactive() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty()
