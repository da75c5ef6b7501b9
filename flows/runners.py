"""Task runners: the same tasks in threads, in processes, or on a cluster of many machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task

from flows.runner_parameters import RunnerParameters
from rshash.errors import RshashError
from rshash.process_end import end_with


class Runner:
    """Submits tasks of the flow that runs.

    Attributes:
        processes: How many processes share the work, and what may be asked of others at once.
    """

    def __init__(self, runner: TaskRunner[Any], processes: int) -> None:
        self._runner, self.processes = runner, max(processes, 1)

    def submit(self, task: Task[..., Any], **arguments: Any) -> PrefectFuture[Any]:
        """Submits one task."""
        future: PrefectFuture[Any] = self._runner.submit(task, arguments)
        return future


@contextmanager
def task_runner(parameters: RunnerParameters, threads: int) -> Iterator[Runner]:
    """The runner that is asked for, for as long as tasks are submitted and waited for.

    Args:
        parameters: Which, and where.
        threads: Of one machine, where tasks mostly wait for the network.

    Raises:
        RshashError: It is not installed, or its cluster does not answer.
    """
    check_runner(parameters)
    runner = _runner(parameters, threads)
    with runner:
        yield Runner(runner, _processes(parameters, runner))


def check_runner(parameters: RunnerParameters) -> None:
    """Refuses a runner that is not installed.

    Raises:
        RshashError: It is not; the message says what to install.
    """
    try:
        if parameters.runner == "dask":
            import prefect_dask  # noqa: F401
        elif parameters.runner == "ray":
            import prefect_ray  # noqa: F401
    except ImportError as error:
        raise RshashError(
            f"--runner {parameters.runner} is not installed here ({error}): "
            f"pip install 'rshash[{parameters.runner}]'."
        ) from None


def _runner(parameters: RunnerParameters, threads: int) -> TaskRunner[Any]:
    kind, address = parameters.runner, parameters.runner_address
    if kind == "threads":
        return ThreadPoolTaskRunner(max_workers=threads)
    if kind == "processes":
        return ProcessPoolTaskRunner(
            max_workers=_cores(), initializer=end_with, initargs=(os.getpid(),)
        )
    if kind == "ray":
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(address=address)
    from prefect_dask import DaskTaskRunner

    if address is not None:
        return DaskTaskRunner(address=address, client_kwargs={"timeout": 30})
    local = {
        "n_workers": _cores(),
        "threads_per_worker": max(threads // _cores(), 1),
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    }
    return DaskTaskRunner(cluster_kwargs=local)


def _processes(parameters: RunnerParameters, runner: Any) -> int:
    if parameters.runner == "threads":
        return 1
    if parameters.runner == "ray":
        import ray

        return int(ray.cluster_resources().get("CPU", 1))
    if parameters.runner == "dask":
        try:
            return len(runner.client.scheduler_info(n_workers=-1)["workers"])
        except OSError as error:
            raise RshashError(
                f"No Dask scheduler answers at {parameters.runner_address} ({error}): start it, "
                "or give its --runner-address."
            ) from None
    return _cores()


def _cores() -> int:
    return os.cpu_count() or 1
