"""Progress of a training run, reported epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished epoch of one stage."""

    stage: str
    epoch: int
    """From 1 to `epochs`."""
    epochs: int
    loss: float
    """Mean loss over the epoch."""
    tiles_per_second: float | None = None


ReportProgress = Callable[[Progress], None]
