"""What a user sees for each kind of bad input, from the command line itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from bench.corpus import private_server
from pgneural.cli.output import print_table
from pgneural.store.embedded import EmbeddedServer

GOOD = b'{"_id": "good", "text": "fine", "embedding": [1, 0, 0]}\n'

INPUTS = {
    "invalid JSON": b'{"_id": "1", "text": "a"\n',
    "missing id": b'{"text": "a"}\n',
    "undecodable bytes": b'{"_id": "1", "text": "caf\xe9"}\n',
    "empty text": b'{"_id": "1", "text": ""}\n',
    "wrong-size vector": b'{"_id": "1", "text": "a", "embedding": [1, 2]}\n',
    "NUL byte": b'{"_id": "1", "text": "a\\u0000b"}\n',
    "10 MB line": b'{"_id": "1", "text": "' + b"a" * 10_000_000 + b'"}\n',
}


@click.command("errors")
def command() -> None:
    """Index one bad record of each kind, followed by a good one."""
    with private_server() as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bad.jsonl"
        rows = [(kind, *seen(server, path, line)) for kind, line in INPUTS.items()]
    print_table(("input", "message on standard error", "others stored", "skip exits", "refuse exits"), rows)


def seen(server: EmbeddedServer, path: Path, line: bytes) -> tuple[str, bool, int, int]:
    """Return the message, whether the good record was stored, and both exit statuses."""
    path.write_bytes(line + GOOD)
    skipped = index(server, path, "skip")
    stored = "1 documents (1 new" in skipped.stdout
    refused = index(server, path, "refuse")
    index_again = [*PROGRAM, "delete", "bench", "--all", "--data-dir", str(server.directory)]
    subprocess.run(index_again, check=True, capture_output=True)
    message = skipped.stderr.strip().replace(f"{path.parent}/", "")
    return message, stored, skipped.returncode, refused.returncode


PROGRAM = [sys.executable, "-c", "from pgneural.cli import main; main()"]


def index(server: EmbeddedServer, path: Path, policy: str) -> subprocess.CompletedProcess[str]:
    """Run ``pgneural index``."""
    arguments = ["index", str(path), "--collection", "bench", "--encoder", "vectors:3", "--bad-records", policy]
    command = [*PROGRAM, *arguments, "--data-dir", str(server.directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
