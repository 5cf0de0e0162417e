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

PEAK = """
import atexit, sys
atexit.register(lambda: print([line for line in open("/proc/self/status") if "VmHWM" in line][0], file=sys.stderr))
"""
"""Ends what a process writes to standard error: its own peak, as the kernel's for children begins at the parent's."""


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
    before, began = os.times(), time.perf_counter()
    program = [sys.executable, "-W", "ignore", "-c", PEAK + code, *arguments]
    ended = subprocess.run(program, capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - began, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return processor, seconds, int(ended.stderr.split()[-2]) / 1024


def tokens_per_second() -> float:
    """Return how many tokens of abstracts NumPy encodes in a second."""
    light = encoders.get("minilm")
    assert isinstance(light, LightEncoder)
    texts = [record["text"][:600] for record in abstracts(20)]
    light.encode_query(texts[0])
    began = time.perf_counter()
    for text in texts:
        light.encode_query(text)
    return sum(light.tokenizer.counts(texts)) / (time.perf_counter() - began)
