"""The short form of ``python -m bench faults``: workers and the server are killed while rows change."""

from __future__ import annotations

from bench.faults import trial


def test_kills_leave_no_chunk_missing_stale_twice_or_orphaned() -> None:
    outcome = trial(seconds=15, rows=2000, workers=3, worker_every=3, server_every=7, seed=3)
    assert set(outcome.faults.values()) == {0}, outcome
    assert outcome.statements > 100
    assert outcome.worker_kills >= 3
    assert outcome.server_kills == 2
