"""Trainings share the GPUs: as many at once as the server's limit has slots."""

import time
from collections.abc import Iterator
from contextvars import copy_context
from threading import Event, Lock, Thread

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


def at_work_at_once(trainings: list[int], meeting: int) -> int:
    """How many GPUs trainings of so many processes had at once, at the most.

    Those that begin wait for one another until so many have met.
    """
    lock, met = Lock(), Event()
    inside = most = begun = 0

    def train(processes: int) -> None:
        nonlocal inside, most, begun
        with gpus(processes):
            with lock:
                inside, begun = inside + processes, begun + 1
                most = max(most, inside)
                if begun >= meeting:
                    met.set()
            met.wait(60)
            # One too many would come now.
            time.sleep(0.5)
            with lock:
                inside -= processes

    threads = [Thread(target=copy_context().run, args=(train, one)) for one in trainings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert not any(thread.is_alive() for thread in threads) and begun == len(trainings)
    return most


@pytest.mark.parametrize(("trainings", "meeting"), [([1, 1, 1], 2), ([2, 1], 1)])
def test_no_more_trainings_at_once_than_there_are_gpus(
    two_gpus: None, trainings: list[int], meeting: int
) -> None:
    assert at_work_at_once(trainings, meeting) == 2


def test_without_a_limit_all_train_at_once() -> None:
    assert at_work_at_once([1, 1, 1], meeting=3) == 3


def test_a_training_that_wants_more_gpus_than_there_are_takes_them_all(two_gpus: None) -> None:
    assert at_work_at_once([4], meeting=1) == 4
