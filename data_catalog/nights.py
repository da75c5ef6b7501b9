"""One night at a time in a catalogue, which remembers the last one's run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from data_catalog import stac
from data_catalog.catalogue_address import working_folder
from data_catalog.errors import CatalogueError

LOCK, RUN = ".night.lock", ".night.json"
"""Files of the catalogue: one is locked while a night lasts, the other names the last one's run."""


@contextmanager
def only_night(catalog: str, run_id: str) -> Iterator[str | None]:
    """Keeps other nights of this machine out of a catalogue while one lasts.

    The lock ends with its process: who has it knows that the night before has ended, however.

    Args:
        catalog: Folder or address of the catalogue; it need not be there yet.
        run_id: The night's own.

    Yields:
        ID of the run of the night before, if there was one.

    Raises:
        CatalogueError: Another night is under way, or the folder cannot be written to.
    """
    folder = working_folder(catalog)
    run = folder / RUN
    with ExitStack() as held:
        try:
            held.enter_context(stac.locked(folder / LOCK, wait=False))
        except BlockingIOError:
            raise CatalogueError(
                f"Another night is at work in {catalog} (flow run {_run_of(run)}): let it end, or "
                "cancel it. What it does not come to, the next night does."
            ) from None
        before = _run_of(run)
        stac.write_json(run, {"run": run_id})
        yield before


def _run_of(path: Path) -> str | None:
    return str(stac.read_json(path)["run"]) if path.exists() else None
