"""What `rshash up` makes on its Prefect server: work pool, limits, deployments."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.limits import GPU_LIMIT
from flows.one_night import UNDER_WAY, crash
from flows.supervisor import FLOW_RUN, end_processes, living_flow_runs, marked
from flows.up_parameters import UpParameters
from rshash.errors import RshashError

POOL = "rshash"
NIGHTLY = "nightly"
DEPLOY_SECONDS = 300

SECONDS_TO_END = 120
"""That a run's process may take to end once the run is over."""

_WITHOUT_PROCESS = "Suspended"
"""State of a paused run whose process has ended on purpose: it is started anew when resumed."""


def definitions_file() -> Path:
    """The prefect.yaml of the checkout, or the one that was installed.

    Raises:
        RshashError: There is none.
    """
    places = [Path(__file__).parents[1], Path(sysconfig.get_path("data")) / "share" / "rshash"]
    for place in places:
        if (place / "prefect.yaml").is_file():
            return place / "prefect.yaml"
    raise RshashError(f"There is no prefect.yaml in {places[0]} or {places[1]}: install anew.")


def rendered_definitions(parameters: UpParameters, definitions: Path) -> dict[str, Any]:
    """The deployments of a prefect.yaml for a catalogue, with the nights that were asked for."""
    content: dict[str, Any] = yaml.safe_load(definitions.read_text())
    for deployment in content["deployments"]:
        deployment.setdefault("parameters", {})["parameters"] = {"catalog": parameters.catalog}
        if deployment["name"] != NIGHTLY:
            continue
        if parameters.area:
            deployment["parameters"]["parameters"] |= parameters.night_form
        # There is no "no schedules": a paused one can be made active in the UI.
        schedule = {"active": bool(parameters.area)}
        times = {"cron": parameters.cron, "timezone": parameters.timezone}
        deployment["schedules"] = [times | schedule]
    return content


def deploy(parameters: UpParameters, environment: Mapping[str, str], gpus: int) -> None:
    """Makes work pool, limits and deployments, or brings them up to date.

    Raises:
        RshashError: The server refuses them.
    """
    _make_pool_and_limit(gpus)
    rendered = parameters.home / "prefect.yaml"
    rendered.write_text(yaml.safe_dump(rendered_definitions(parameters, definitions_file())))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    log = parameters.home / "logs" / "deploy.log"
    with log.open("w") as output:
        try:
            subprocess.run(
                [*command, "--prefect-file", str(rendered)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=DEPLOY_SECONDS,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise RshashError(f"The deployments could not be made: see {log}.") from error


def crash_orphaned_runs(home: Path, *, pending: bool) -> list[str]:
    """Tells the server of flow runs whose processes have ended without a word.

    Else they would count as running for ever, and keep the next night from its turn.

    Args:
        home: Whose processes are looked at.
        pending: Whether runs count that have no process yet: they do while there is no worker that
            could just be starting it.

    Returns:
        Their names.
    """
    with get_client(sync_client=True) as client:
        suspects = _under_way(client)
        alive = living_flow_runs(home)
        # What has ended by itself meanwhile is left out.
        still = {run.id for run in _under_way(client)}
        orphans = [
            run
            for run in suspects
            if run.id in still
            and str(run.id) not in alive
            and run.state_name != _WITHOUT_PROCESS
            and (pending or run.state_type != StateType.PENDING)
        ]
    for run in orphans:
        crash(run.id)
    return [run.name for run in orphans]


def end_finished_runs(home: Path) -> None:
    """Ends the processes of flow runs that are over as far as the server knows.

    A worker that was started anew cannot end what the one before had started: somebody cancels such
    a run, and it would go on.
    """
    over = datetime.now(UTC) - timedelta(seconds=SECONDS_TO_END)
    left = []
    with get_client(sync_client=True) as client:
        for process, environment in marked(home).items():
            if FLOW_RUN not in environment:
                continue
            with suppress(ObjectNotFound):
                state = client.read_flow_run(UUID(environment[FLOW_RUN])).state
                if state is not None and state.is_final() and state.timestamp < over:
                    left.append(process)
    end_processes(left, seconds=10.0)


def _under_way(client: SyncPrefectClient) -> list[FlowRun]:
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": UNDER_WAY}}})
    return client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=pool)


def _make_pool_and_limit(gpus: int) -> None:
    # Both may have been changed in the UI since they were made: then they stay as they are.
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            limit = GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=max(gpus, 1))
            client.create_global_concurrency_limit(limit)
