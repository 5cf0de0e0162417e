"""What a process pays before its first answer: with the queries of BERT models in NumPy, and with the whole model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import click

from bench.corpus import abstracts, private_server
from pgneural import Database, encoders
from pgneural.cli.output import print_table
from pgneural.encoders.light import FEW_TOKENS, LightEncoder

PROGRAMS = {
    "import pgneural": "import pgneural",
    "a query in NumPy": "from pgneural import encoders; encoders.get('minilm').encode_query('a fox')",
    "a query by the whole model": (
        "from pgneural import encoders; encoders.make('minilm', precision='float32').encode_query('a fox')"
    ),
    "pgneural search": "from pgneural.cli import main; main()",
}


@click.command("start")
@click.option("--runs", default=5, show_default=True)
def command(runs: int) -> None:
    """Processor seconds, seconds and peak memory of new processes; how much NumPy encodes while torch starts."""
    with private_server() as server, Database(server.start()) as database:
        database.upgrade()
        database.collection("notes", encoder="minilm").index([{"id": "1", "text": "a red fox"}])
        search = ["search", "notes", "a fox", "--data-dir", str(server.directory)]
        rows = {name: started(code, search, runs) for name, code in PROGRAMS.items()}
    print_table(("new process", "processor s", "s", "peak MiB"), [(name, *row) for name, row in rows.items()])
    ahead = rows["a query by the whole model"][1] - rows["a query in NumPy"][1]
    rate = tokens_per_second()
    click.echo(f"NumPy encodes {rate:,.0f} tokens/s: {ahead * rate:,.0f} while the whole model starts ({FEW_TOKENS:,})")


def started(code: str, arguments: list[str], runs: int) -> tuple[float, float, float]:
    """Return the medians of processor seconds, seconds and MiB over some new processes."""
    measured = [measure(code, arguments) for _ in range(runs + 1)][1:]  # the first reads the files from the disk
    processor, seconds, memory = zip(*measured, strict=True)
    return median(processor), median(seconds), median(memory)


def measure(code: str, arguments: list[str]) -> tuple[float, float, float]:
    """Run a program; return its processor seconds, seconds and peak memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, code
    return used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 1024


def tokens_per_second() -> float:
    """Return how many tokens of abstracts NumPy encodes in a second."""
    light = encoders.get("minilm")
    assert isinstance(light, LightEncoder)
    texts = [light.tokenizer.shortened(record["text"], 200, "minilm") for record in abstracts(20)]
    light.encode_query(texts[0])
    began = time.perf_counter()
    for text in texts:
        light.encode_query(text)
    return sum(light.tokenizer.counts(texts)) / (time.perf_counter() - began)
