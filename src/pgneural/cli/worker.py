"""The commands about work: a worker, and what is still to be done."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import click

from pgneural import metrics
from pgneural.cli import output
from pgneural.cli.options import Option, Target, json_option, target_options
from pgneural.database import Database
from pgneural.errors import DatabaseUnreachable, UnfinishedWork, UnknownSpace
from pgneural.load.permitted_files import permit_files
from pgneural.printable import PrintableFormatter, counted
from pgneural.printable import logger as logger_of
from pgneural.report import Report
from pgneural.worker import Worker, unknown_spaces

logger = logger_of(__name__)

PATIENCE_SECONDS = 60.0
"""For so long a worker waits at its start for a server that is not there: it may be starting, too."""


@click.command()
@click.option(
    "--once", is_flag=True, help="Stop when nothing is left to do. The command exits 1 if rows failed.", cls=Option
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=2,
    help="The number of threads. With two, one encodes while the other stores.",
    cls=Option,
)
@click.option(
    "--spaces",
    multiple=True,
    metavar="NAME",
    help="Work only on this table.search or collection. Repeat the option for several.",
    cls=Option,
)
@click.option("--retry-failed", is_flag=True, help="Retry the rows that were given up first.", cls=Option)
@click.option(
    "--as-superuser",
    is_flag=True,
    help="Run even as a superuser, whose rights the owners of tables could then get.",
    cls=Option,
)
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="The port on which Prometheus reads metrics.", cls=Option
)
@click.option(
    "--metrics-address", default="127.0.0.1", help="The address on which Prometheus reads metrics.", cls=Option
)
@click.option(
    "--files",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    envvar="PGNEURAL_FILES",
    help="A folder below which this worker may read the files that the database names, as pictures for another model."
    " Repeat the option for several.",
    cls=Option,
)
@json_option
@target_options
def worker(
    target: Target,
    once: bool,
    concurrency: int,
    spaces: tuple[str, ...],
    retry_failed: bool,
    as_superuser: bool,
    metrics_port: int | None,
    metrics_address: str,
    files: tuple[str, ...],
    as_json: bool,
) -> None:
    """Encode changed rows as they come, until the worker is stopped (SIGTERM or Ctrl-C).

    You can start any number of workers on any number of hosts, and they share the work. A worker that is stopped
    finishes the rows that it has begun.
    """
    _log()
    permit_files(*files)
    with target.open() as database:
        _wait_for(database, 0.0 if once else PATIENCE_SECONDS)
        if missing := unknown_spaces(database.engine, spaces):
            raise UnknownSpace(f"no search and no collection {missing[0]!r}; pgneural status lists them")
        if retry_failed:
            database.retry_failed()
        # the embedded server has no other role, and nobody else's tables
        allowed = as_superuser or target.url is None
        running = Worker(database.url, concurrency=concurrency, only=spaces, as_superuser=allowed)
        _stop_on_signals(running)
        server = metrics.serve(running, metrics_port, metrics_address) if metrics_port else None
        try:
            running.run(once=once)
        finally:
            if server is not None:
                metrics.close(server)
        left = [status for status in database.work() if status.failed]
    _report(running, as_json)
    if once and (running.problems or left):
        problems = [
            *running.problems,
            *(f"{counted(s.failed, 'row', 'rows')} of {s.search} failed" for s in left),
        ]
        raise UnfinishedWork(f"{'; '.join(problems)}; neural.failed says why")


def _log() -> None:
    """Show what our loggers say, and the warnings of others, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("pgneural").setLevel(logging.INFO)


def _wait_for(database: Database, patience: float) -> None:
    deadline, told = time.monotonic() + patience, False
    while True:
        try:
            return database.require_current()
        except DatabaseUnreachable as error:
            if time.monotonic() > deadline:
                raise
            if not told:
                logger.warning("%s It is tried again for %.0f s.", error, patience)
            told = True
            time.sleep(0.5)


def _stop_on_signals(worker: Worker) -> None:
    def stop(*_: Any) -> None:
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _report(worker: Worker, as_json: bool) -> None:
    done = Report()
    for total in worker.totals.values():
        done.add(total)
    if as_json:
        names = ("rows", "chunks_encoded", "chunks_reused", "failed")
        output.print_json({name: getattr(done, name) for name in names})
    else:
        known = f"{counted(done.chunks_encoded, 'chunk', 'chunks')} encoded, {done.chunks_reused:,} known already"
        output.say(f"{counted(done.rows, 'row is', 'rows are')} up to date: {known}")


@click.command()
@json_option
@target_options
def status(target: Target, as_json: bool) -> None:
    """Show how many rows wait to be encoded and which workers run."""
    with target.open() as database:
        database.require_current()
        spaces, workers = database.work(), database.workers()
    if as_json:
        output.print_json({"spaces": [vars(space) for space in spaces], "workers": [vars(each) for each in workers]})
        return
    columns = ("search", "space", "state", "encoder", "pending", "oldest", "failed", "rows/s", "encoded/s")
    rows = [
        (
            s.search,
            s.name,
            s.state,
            s.encoder,
            s.pending,
            "" if s.oldest_seconds is None else f"{s.oldest_seconds:.0f} s",
            s.failed,
            f"{s.rows_per_second:.1f}",
            f"{s.encoded_per_second:.1f}",
        )
        for s in spaces
    ]
    output.print_table(columns, rows)
    for s in spaces:
        if s.problem:
            output.say(f"{s.search}: {s.problem}")
    output.print_table(("worker", "seen"), [(each.id, f"{each.seconds_ago:.0f} s ago") for each in workers])
