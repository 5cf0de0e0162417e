"""Files against the library alone that reads them: which of its words are found, and how fast."""

from __future__ import annotations

import re
import time
from pathlib import Path
from statistics import median

import click
import pypdfium2

from bench import meshes, pictures, sounds
from bench.corpus import ROOT
from pgneural import Record, load
from pgneural.cli.output import print_table

DATA = ROOT.parent / "shared" / "data"


@click.command("content")
@click.option("--runs", default=3, show_default=True, help="Medians of so many.")
@click.option("--part", type=click.Choice(["pdf", "pictures", "sounds", "meshes"]), help="Only this; all by default.")
def command(runs: int, part: str | None) -> None:
    """What is found in files of each kind, and how fast, against the libraries alone that read and encode them."""
    if part in (None, "pdf"):
        documents(runs)
    if part in (None, "pictures"):
        pictures.measure(runs)
    if part in (None, "sounds"):
        sounds.measure(runs)
    if part in (None, "meshes"):
        meshes.measure(runs)


def documents(runs: int) -> None:
    """Print words and seconds of the PDF files of the data, against pypdfium2; each page of each is read."""
    files = sorted((DATA / "pdf" / "files").glob("*.pdf"))
    if not files:
        raise click.ClickException(f"the data is not there: {DATA / 'pdf'}")
    list(load.read(files[:1]))  # the process is there
    ours, alone, rows = [], [], []
    for _ in range(runs):
        started = time.perf_counter()
        read = {record.uri: record for record in load.read(files) if isinstance(record, Record)}
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        texts = {file: text_alone(file) for file in files}
        alone.append(time.perf_counter() - started)
    for file, text in texts.items():
        record = read.get(file.as_uri())
        if record is not None:
            rows.append((file.name, record.content.count("\f") + 1, share(record.content, text)))
    print_table(("file", "pages", "share of its words"), rows)
    refused = len(files) - len(rows)
    print_table(
        ("files", "refused", "ours, s", "pypdfium2, s", "throughput", "asked"),
        [(len(files), refused, median(ours), median(alone), median(alone) / median(ours), "≥ 0.85")],
    )


def text_alone(file: Path) -> str:
    """Return the text of a file as the library gives it, with parted words joined; none without a password."""
    try:
        document = pypdfium2.PdfDocument(file.read_bytes())
    except pypdfium2.PdfiumError:
        return ""
    text = "\n".join(page.get_textpage().get_text_bounded() for page in document)
    return re.sub("(?<=\\w)[\x02\ufffe](?:\r?\n)?(?=\\w)", "", text)


def share(found: str, text: str) -> float:
    """Return which share of the words of a text was found."""
    words = set(re.findall(r"\w+", text))
    return len(words & set(re.findall(r"\w+", found))) / max(1, len(words))
