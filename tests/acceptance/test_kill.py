"""The short form of ``python -m bench kill``: kills of the process and of the server while documents change."""

from __future__ import annotations

from bench.kill import trials


def test_kills_leave_nothing_that_the_next_run_does_not_mend() -> None:
    outcomes = trials(documents=600, processes=3, servers=2, seed=7)
    assert {victim: outcome.differences for victim, outcome in outcomes.items()} == {"process": 0, "server": 0}
    assert {victim: outcome.without_words for victim, outcome in outcomes.items()} == {"process": 0, "server": 0}
    assert sum(outcome.in_the_middle for outcome in outcomes.values()) >= 3
