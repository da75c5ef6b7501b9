"""What trainings share: the GPUs, as many as the Prefect server's limit `gpu` has slots."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

GPU_LIMIT = "gpu"

LEASE_SECONDS = 60.0
"""How long a killed training keeps its slots."""


@contextmanager
def gpus(processes: int) -> Iterator[None]:
    """Waits until a training may have its GPUs, and holds them; where there is no limit, at once.

    Args:
        processes: Of the training, a GPU for each.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            yield
            return
    slots = max(min(processes, limit.limit), 1)
    if limit.active_slots + slots > limit.limit:
        print(f"  waiting for {slots} of {limit.limit} GPUs (limit '{GPU_LIMIT}')", file=sys.stderr)
    with concurrency(GPU_LIMIT, occupy=slots, lease_duration=LEASE_SECONDS):
        yield
