"""Progress of a training run, reported epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished epoch of one stage, or part of a stage that takes a single pass."""

    stage: str
    epoch: int
    """From 1 to `epochs`."""
    epochs: int
    loss: float | None = None
    """Mean loss over the epoch; None in a stage that learns nothing by gradients."""
    tiles_per_second: float | None = None


ReportProgress = Callable[[Progress], None]
