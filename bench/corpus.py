"""The real text that is measured on, and a private server to measure in."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click

from pgneural.store.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".bench-cache"
ARXIV = ROOT.parent / "shared" / "data" / "corpus-arxiv" / "corpus.jsonl.gz"


def abstracts(limit: int | None = None) -> list[dict[str, Any]]:
    """Return the first abstracts of corpus-arxiv as BEIR records."""
    if not ARXIV.exists():
        raise click.ClickException(f"the corpus is not there: {ARXIV}")
    with gzip.open(ARXIV, "rt") as lines:
        return [json.loads(line) for line in islice(lines, limit)]


@contextmanager
def private_server() -> Iterator[EmbeddedServer]:
    """Start a server of its own, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pgneural-bench-"))
    server = EmbeddedServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
