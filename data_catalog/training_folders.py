"""Folders that keep the state of trainings until their models are published."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from data_catalog import stac
from rshash.errors import TrainingError

KEEP_DAYS = 30
"""A training that nobody went on with this long starts anew."""

_DAY = 86400


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Keeps a training's folder to this run while it lasts; a killed run keeps nothing.

    Folders beside it that no run has touched for `KEEP_DAYS` are removed.

    Args:
        folder: Of the training; need not be there.

    Raises:
        TrainingError: Another run of the same training has it.
    """
    # A lock's file is opened and removed by one run at a time: nobody locks one that is gone.
    all_locks = folder.parent / ".lock"
    with ExitStack() as held:
        with stac.locked(all_locks):
            try:
                held.enter_context(stac.locked(_lock(folder), wait=False))
            except BlockingIOError:
                raise TrainingError(
                    f"The same training runs already; its state is in {folder}. Wait until it has "
                    "published its model, or end it and start this one again, which goes on from "
                    "there."
                ) from None
            _remove_unused(folder.parent)
        try:
            yield
        finally:
            with stac.locked(all_locks):
                _lock(folder).unlink(missing_ok=True)


def _remove_unused(parent: Path) -> None:
    oldest = time.time() - KEEP_DAYS * _DAY
    for path in parent.iterdir():
        # What was listed may be gone: with its lock, or as its model was published.
        with suppress(FileNotFoundError):
            if path.name.startswith(".") or path.stat().st_mtime >= oldest:
                continue
            folder = path.with_suffix("")
            with suppress(BlockingIOError), stac.locked(_lock(folder), wait=False):
                shutil.rmtree(folder, ignore_errors=True)
                _lock(folder).unlink()


def _lock(folder: Path) -> Path:
    return folder.with_suffix(".lock")
