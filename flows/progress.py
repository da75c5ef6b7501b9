"""Progress that people see: a bar or lines on the terminal, an artifact on the run's page."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from http import HTTPStatus
from types import TracebackType
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import ProgressArtifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from flows.artifacts import page
from flows.reporting import tell
from rshash.progress import Progress as Epoch

ARTIFACT_SECONDS = 2.0
"""Shortest time between two updates of an artifact: each is a request to the server."""


class Progress:
    """Shows how far a stage is.

    Args:
        title: What is being done, such as ``"read sentinel-2-l2a"``.
        total: How many units there are.
        unit: Name of the units, in the plural.
    """

    def __init__(self, title: str, total: int, unit: str = "tiles") -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, 0
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("  {task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._plain = not console.is_terminal
        self._artifact: UUID | None = None
        self._updated = 0.0
        self._said = -1

    def __enter__(self) -> Progress:
        self._bar.start()
        self._task = self._bar.add_task(self.title, total=self.total)
        if FlowRunContext.get() or TaskRunContext.get():
            self._artifact = tell(self._begin, waits=())
        return self

    def advance(self, units: int = 1, note: str = "") -> None:
        """Counts units as done; a note such as the loss is shown beside the title."""
        self.show(self.done + units, self.total, note)

    def show(self, done: int, total: int, note: str = "") -> None:
        """Shows how many units are done, of a total that may only now be known."""
        self.done, self.total = done, total
        described = f"{self.title} {note}".strip()
        self._bar.update(self._task, completed=done, total=total, description=described)
        percent = 100.0 * self.done / max(self.total, 1)
        if self._plain and int(percent) // 25 > self._said:
            self._said = int(percent) // 25
            line = f"  {self.title}: {done}/{total} {self.unit} {note}"
            print(line.rstrip(), file=sys.stderr)
        if self._artifact and time.monotonic() - self._updated > ARTIFACT_SECONDS:
            self._updated = time.monotonic()
            self._tell(min(percent, 100.0))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._artifact and error is None:
            self._tell(100.0)

    def _begin(self) -> UUID:
        shown = ProgressArtifact(progress=0.0, description=self.title, flow_run_id=page())
        return cast(UUID, cast(Any, shown.create()).id)

    def _tell(self, percent: float) -> None:
        artifact = self._artifact
        assert artifact is not None
        try:
            tell(lambda: update_progress_artifact(artifact, progress=percent), waits=())
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            self._artifact = None  # Somebody has deleted it.


class EpochProgress:
    """Shows the epochs of a training, a bar for every stage.

    Args:
        title: Stands before the stage's name.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._stage: str | None = None
        self._bars = ExitStack()

    def __enter__(self) -> EpochProgress:
        return self

    def show(self, epoch: Epoch) -> None:
        """Shows one more finished epoch, with its loss and speed."""
        if epoch.stage != self._stage:
            self._bars.close()
            self._stage = epoch.stage
            self._bar = self._bars.enter_context(
                Progress(
                    f"{self._title}: {epoch.stage}",
                    epoch.epochs,
                    "parts" if epoch.loss is None else "epochs",
                )
            )
        notes = [
            *([] if epoch.loss is None else [f"loss {epoch.loss:.3g}"]),
            *([f"{epoch.tiles_per_second:,.0f} tiles/s"] if epoch.tiles_per_second else []),
        ]
        self._bar.show(epoch.epoch, epoch.epochs, ", ".join(notes))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.__exit__(kind, error, trace)
