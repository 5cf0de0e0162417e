"""A quality gate: which measure of which mode must not be below what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import click

from pgneural.evaluation import MEASURES, Evaluation
from pgneural.types import Mode


@dataclass(frozen=True)
class QualityBar:
    """A bar that one mode, or every mode that was evaluated, has to reach."""

    mode: str | None
    measure: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[MODE:]MEASURE=VALUE``."""
        left, equals, value = text.partition("=")
        mode, colon, measure = left.rpartition(":")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or measure not in MEASURES or (colon and mode not in tuple(Mode)):
            raise click.BadParameter(
                f"{text!r} is not [MODE:]MEASURE=VALUE; the measures are {', '.join(MEASURES)}, "
                f"the modes {', '.join(Mode)}"
            )
        return cls(mode or None, measure, number)

    def missed(self, evaluation: Evaluation) -> Iterator[str]:
        """Tell which modes are below the bar."""
        if self.mode and self.mode not in evaluation.modes:
            yield f"{self.mode} was not evaluated"
        for mode, result in evaluation.modes.items():
            if self.mode in (None, mode) and result.mean[self.measure] < self.value:
                yield f"{mode}: {self.measure} is {result.mean[self.measure]:.4f}, expected at least {self.value:g}"
