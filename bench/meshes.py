"""Meshes through a collection: what is found, against figures of the same work without a database, and how fast."""

from __future__ import annotations

import tempfile
import time
import zipfile
from pathlib import Path

import click
import numpy as np

from bench.corpus import ROOT, private_server
from pgneural import Collection, Database, encoders, load
from pgneural.cli.output import print_table
from pgneural.load.extractors import mesh

DATA = ROOT.parent / "shared" / "data" / "meshes-psb"

ASKED = {"1-NN": 0.832, "mAP": 0.799}
"""The figures of `shared/reference/content.md` (12 views, mean), which ours must not be below by more than .02."""


def measure(runs: int) -> None:
    """Print what is found of meshes, and the throughput."""
    if not DATA.exists():
        raise click.ClickException(f"the data is not there: {DATA}")
    with tempfile.TemporaryDirectory() as folder, private_server() as server, Database(server.start()) as database:
        database.upgrade()
        with zipfile.ZipFile(DATA / "meshes.zip") as archive:
            archive.extractall(folder)
        files = sorted(Path(folder).rglob("*.off"))
        found = alike(database.collection("meshes", encoder="efficientnet-lite0"), files)
        rows = [
            (name, f"{found[name]:.3f}", f"{asked:.3f}", f"{found[name] - asked:+.3f}") for name, asked in ASKED.items()
        ]
        print_table(("measure", "found", "reference", "difference"), rows)
        throughput(database, files, runs)


def alike(collection: Collection, files: list[Path]) -> dict[str, float]:
    """Search for each mesh among all others; those of its class are right."""
    collection.index([str(file) for file in files])
    first, average = [], []
    for file in files:
        hits = collection.search(file, limit=len(files))
        others = [Path(hit.entity.external_id) for hit in hits if hit.entity.external_id != file.as_posix()]
        right = np.array([other.parent.name == file.parent.name for other in others])
        precisions = np.cumsum(right) / np.arange(1, len(right) + 1)
        first.append(right[0])
        average.append((precisions * right).sum() / right.sum())
    return {"1-NN": float(np.mean(first)), "mAP": float(np.mean(average))}


def throughput(database: Database, files: list[Path], runs: int) -> None:
    """Index meshes, against drawing and encoding them in this process."""
    encoder = encoders.get("efficientnet-lite0")
    list(load.read(files[:1]))  # the process is there
    by_hand(files[:1])
    ours, alone = [], []
    for number in range(runs):
        collection = database.collection(f"run {number}", encoder="efficientnet-lite0")
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM neural.vectors")
        started = time.perf_counter()
        collection.index([str(file) for file in files])
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        encoder.encode_documents(by_hand(files))
        alone.append(time.perf_counter() - started)
        database.drop(f"run {number}")
    first, second = float(np.median(ours)), float(np.median(alone))
    print_table(
        ("meshes", "ours, s", "trimesh and the network, s", "throughput", "asked"),
        [(len(files), f"{first:.1f}", f"{second:.1f}", f"{second / first:.2f}", "≥ 0.85")],
    )


def by_hand(files: list[Path]) -> list[np.ndarray]:
    """Draw meshes."""
    drawn = [mesh.extract(file.read_bytes()) for file in files]
    return [np.frombuffer(each["array"], dtype=np.uint8).reshape(each["shape"]) for each in drawn]
