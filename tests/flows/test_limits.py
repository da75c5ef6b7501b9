"""Trainings share the GPUs: as many at once as the server's limit has slots."""

import time
from collections.abc import Iterator
from contextvars import copy_context
from threading import Thread

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from flows.limits import GPU_LIMIT, gpus

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def two_gpus() -> Iterator[None]:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=2)
        )
        yield
        client.delete_global_concurrency_limit_by_name(GPU_LIMIT)


def at_work_at_once(trainings: list[int]) -> int:
    """How many GPUs trainings of so many processes had at once, at the most."""
    moments: list[tuple[float, int]] = []

    def train(processes: int) -> None:
        with gpus(processes):
            moments.append((time.monotonic(), processes))
            time.sleep(1.0)
            moments.append((time.monotonic(), -processes))

    threads = [Thread(target=copy_context().run, args=(train, one)) for one in trainings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(moments) == 2 * len(trainings)
    held = [sum(change for _, change in sorted(moments)[: end + 1]) for end in range(len(moments))]
    return max(held)


@pytest.mark.parametrize("trainings", [[1, 1, 1], [2, 1]])
def test_no_more_trainings_at_once_than_there_are_gpus(
    two_gpus: None, trainings: list[int]
) -> None:
    assert at_work_at_once(trainings) == 2


def test_without_a_limit_all_train_at_once() -> None:
    assert at_work_at_once([1, 1, 1]) == 3


def test_a_training_that_wants_more_gpus_than_there_are_takes_them_all(two_gpus: None) -> None:
    assert at_work_at_once([4]) == 4
