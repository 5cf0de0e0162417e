"""What fusing the legs is worth: nDCG@10 of each leg and of both, with default settings, and around them."""

from __future__ import annotations

from statistics import mean

import click

from bench.judged import NAMES, Judged, indexed
from pgneural import RRF, Collection, WeightedSum, evaluate
from pgneural.cli.output import print_table
from pgneural.statement import Fusion

AROUND: dict[str, Fusion] = {
    **{f"semantic × {weight:g}": WeightedSum(semantic=weight) for weight in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)},
    "equal RRF": RRF(),
}


@click.command("hybrid")
@click.option("--collection", "names", multiple=True, default=NAMES, show_default=True)
@click.option("--sweep", is_flag=True, help="Also other weights than the default, and RRF.")
def command(names: tuple[str, ...], sweep: bool) -> None:
    """nDCG@10 of the semantic, lexical and hybrid mode on judged collections."""
    rows: list[tuple[object, ...]] = []
    reached: list[tuple[float, ...]] = []
    swept: dict[str, list[float]] = {label: [] for label in AROUND}
    for collection, data in indexed(names):
        semantic, lexical, hybrid = (ndcg(collection, data, mode) for mode in ("semantic", "lexical", "hybrid"))
        better = max(semantic, lexical)
        reached.append((semantic, lexical, hybrid, hybrid - better))
        rows.append((data.name, len(data.queries), *reached[-1]))
        for label, fusion in AROUND.items() if sweep else ():
            swept[label].append(ndcg(collection, data, "hybrid", fusion) - better)
    rows.append(("mean", None, *(mean(column) for column in zip(*reached, strict=True))))
    print_table(("collection", "queries", "semantic", "lexical", "hybrid", "over the better leg"), rows)
    if sweep:
        print_table(("gain with", *names, "mean"), [(label, *values, mean(values)) for label, values in swept.items()])


def ndcg(collection: Collection, data: Judged, mode: str, fusion: Fusion | None = None) -> float:
    """Return nDCG@10 of one mode."""
    result = evaluate(collection, data.queries, data.qrels, modes=[mode], fusion=fusion)
    return result.modes[mode].mean["ndcg@10"]
