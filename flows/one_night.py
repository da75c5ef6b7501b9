"""Nights of one catalogue: one at a time, and none that counts as running when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from data_catalog.nights import only_night
from flows.reporting import tell

CUT_OFF = (
    "This run ended without a word: its process or its machine was ended from outside, or this "
    "server was out of reach. What it had read and published stays, and the next run goes on there."
)

UNDER_WAY = ["RUNNING", "PENDING", "CANCELLING", "PAUSED"]


@contextmanager
def one_night(catalog: str) -> Iterator[None]:
    """Keeps other nights out of a catalogue, and tells the server if the one before was killed.

    Raises:
        CatalogueError: Another night is under way, or the folder cannot be written to.
    """
    run_id = str(flow_run.id)
    with only_night(catalog, run_id) as before:
        if before is not None and before != run_id:
            tell(lambda: crash(UUID(before)))
        yield


def crash(run_id: UUID, message: str = CUT_OFF) -> None:
    """Tells the server that a run and its subflows are not running any more, if it thinks so."""
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # It was another server's.
            return
        # Who watched its process has told of itself alone, not of what runs inside.
        level = [run]
        while level:
            for run in level:
                if run.state is None or not run.state.is_final():
                    client.set_flow_run_state(run.id, Crashed(message=message), force=True)
            wanted = {
                "state": {"type": {"any_": UNDER_WAY}},
                "parent_flow_run_id": {"any_": [run.id for run in level]},
            }
            level = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted))
