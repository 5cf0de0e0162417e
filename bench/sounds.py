"""Sounds through a collection: what is found and heard, against figures without a database, and how fast."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import click
import numpy as np

from bench.corpus import ROOT, private_server
from pgneural import Collection, Database, encoders, load, transcribers
from pgneural.cli.output import print_table
from pgneural.encoders.cache_folder import cache_folder
from pgneural.types import SAMPLING_RATE, Samples

DATA = ROOT.parent / "shared" / "data"

ASKED = {
    "digit, other speaker: 1-NN": 0.923,
    "digit, other speaker: mAP@10": 0.928,
    "slots verbatim": 80 / 87,
    "orders with all slots": 24 / 30,
    "order → drink": 0.867,
}
"""The figures of `shared/reference/content.md`, which ours must not be below by more than .02."""

DRINKS = [
    "iced coffee",
    "house coffee",
    "mocha",
    "drip coffee",
    "iced mocha",
    "latte",
    "cappuccino",
    "espresso",
    "americano",
    "coffee",
]

NUMBERS = {"8": "eight", "12": "twelve", "16": "sixteen", "20": "twenty"}
"""A transcript may have a number in digits."""


def measure(runs: int) -> None:
    """Print what is found of sounds, and the throughput."""
    if not (DATA / "audio-spoken-digits").exists():
        raise click.ClickException(f"the data is not there: {DATA / 'audio-spoken-digits'}")
    with tempfile.TemporaryDirectory() as cache, private_server() as server, Database(server.start()) as database:
        os.environ["XDG_CACHE_HOME"] = cache
        database.upgrade()
        found = digits(database.collection("digits", encoder="openwakeword"))
        found |= orders(database.collection("orders"), database.collection("drinks"))
        rows = [
            (name, f"{found[name]:.3f}", f"{asked:.3f}", f"{found[name] - asked:+.3f}") for name, asked in ASKED.items()
        ]
        print_table(("measure", "found", "reference", "difference"), rows)
        throughput(database, runs)


def digits(collection: Collection) -> dict[str, float]:
    """Search for each spoken digit among those of other speakers; those of the same digit are right."""
    files = sorted((DATA / "audio-spoken-digits" / "recordings").glob("*.wav"))
    collection.index([str(file) for file in files])
    right = []
    for file in files:
        digit, speaker, _ = file.stem.split("_")
        hits = collection.search(file, where=f"title NOT LIKE '%\\_{speaker}\\_%'", limit=10)
        right.append([hit.entity.title.startswith(f"{digit}_") for hit in hits])
    matrix = np.array(right)
    precisions = np.cumsum(matrix, axis=1) / np.arange(1, 11)
    average = (precisions * matrix).sum(axis=1) / np.maximum(matrix.sum(axis=1), 1)
    return {
        "digit, other speaker: 1-NN": float(matrix[:, 0].mean()),
        "digit, other speaker: mAP@10": float(average.mean()),
    }


def orders(collection: Collection, drinks: Collection) -> dict[str, float]:
    """Transcribe spoken orders, and ask by each which drink it is."""
    folder = DATA / "audio-voice-commands"
    labels: list[dict[str, Any]] = [json.loads(line) for line in (folder / "labels.jsonl").open()]
    paths = {path.name: path for path in folder.rglob("*.wav")}
    collection.index([str(paths[label["file"]]) for label in labels])
    drinks.index({"id": drink, "text": f"brew me a {drink}"} for drink in DRINKS)
    told = {document.title: _words(document.content) for document in collection.documents()}
    heard = [[_words(value) in told.get(label["file"], "") for value in label["slots"].values()] for label in labels]
    named = [label for label in labels if label["slots"].get("coffeeDrink") in DRINKS]
    first = [drinks.search(paths[label["file"]], mode="semantic", limit=1)[0].entity.external_id for label in named]
    return {
        "slots verbatim": float(np.mean([each for slots in heard for each in slots])),
        "orders with all slots": float(np.mean([all(slots) for slots in heard])),
        "order → drink": float(
            np.mean([drink == each["slots"]["coffeeDrink"] for drink, each in zip(first, named, strict=True)])
        ),
    }


def _words(text: str) -> str:
    """Return the words of a text in lower case, with blanks around."""
    words = re.findall(r"[a-z]+|\d+", text.lower())
    return f" {' '.join(NUMBERS.get(word, word) for word in words)} "


def throughput(database: Database, runs: int) -> None:
    """Index sounds, against the libraries alone: FFmpeg and the networks in this process."""
    digits = sorted((DATA / "audio-spoken-digits" / "recordings").glob("*.wav"))
    spoken = sorted((DATA / "audio-voice-commands").rglob("*.wav"))
    ears, whisper = encoders.get("openwakeword"), transcribers.get()
    list(load.read(digits[:1]))  # the process is there
    whisper.transcribe(np.zeros(SAMPLING_RATE, dtype=np.int16))
    encoders.get("minilm").encode_documents(["a text"])
    rows = []
    for name, files, encoder, by_hand in (
        ("spoken digits", digits, "openwakeword", lambda sounds: ears.encode_documents(sounds)),
        ("spoken orders", spoken, "minilm", lambda sounds: [whisper.transcribe(sound) for sound in sounds]),
    ):
        ours, alone = [], []
        for number in range(runs):
            collection = database.collection(f"run {number}", encoder=encoder)
            _forget(database)
            started = time.perf_counter()
            collection.index([str(file) for file in files])
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            by_hand(decoded(files))
            alone.append(time.perf_counter() - started)
            database.drop(f"run {number}")
        first, second = float(np.median(ours)), float(np.median(alone))
        rows.append((name, len(files), f"{first:.1f}", f"{second:.1f}", f"{second / first:.2f}", "≥ 0.85"))
    print_table(("sounds", "files", "ours, s", "FFmpeg and the network, s", "throughput", "asked"), rows)


def _forget(database: Database) -> None:
    """Forget what was encoded and heard before."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM neural.vectors")
    for transcript in (cache_folder() / "transcripts").glob("*.json"):
        transcript.unlink()


def decoded(files: Sequence[Path]) -> list[Samples]:
    """Decode sounds."""
    every = []
    for file in files:
        with av.open(str(file)) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLING_RATE)
            frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
            every.append(np.concatenate([f.to_ndarray()[0] for f in [*frames, *resampler.resample(None)]]))
    return every
