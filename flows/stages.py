"""How long the stages of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from flows.tables import duration


class Stages:
    """A stopwatch with a row for every stage, in the order in which they ended."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times what is done inside; one that is entered again goes on."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began

    def rows(self) -> list[dict[str, str]]:
        """A row a stage, and one for all."""
        rows = [{"stage": name, "took": duration(took)} for name, took in self._seconds.items()]
        return [*rows, {"stage": "in all", "took": self.total()}]

    def total(self) -> str:
        """The time since the first stage could begin."""
        return duration(time.monotonic() - self._began)
