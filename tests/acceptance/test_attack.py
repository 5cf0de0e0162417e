"""The short form of ``python -m bench attack``: a sample of the hostile inputs, and every control."""

from __future__ import annotations

from bench.attack import groups, trial


def test_there_are_inputs_enough_and_each_has_a_name_of_its_own() -> None:
    found = {group.name: [each.name for each in group.inputs] for group in groups()}
    assert len(found["filters as text"]) >= 70
    assert len(found["rights"]) >= 40
    assert len(found["values and names"]) >= 40
    for names in found.values():
        assert len(set(names)) == len(names)


def test_hostile_inputs_have_no_effect_and_controls_have_one() -> None:
    for outcome in trial(every=61):
        assert outcome.inputs >= 3
        assert outcome.effects == {}, outcome.group
        assert outcome.trusted, outcome.controls
