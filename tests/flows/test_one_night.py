"""What the server is told of a night that was killed."""

from uuid import UUID, uuid4

import pytest
from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Completed, Crashed, Running, State

from flows.ingest import ingest
from flows.nightly import nightly
from flows.one_night import crash

pytestmark = pytest.mark.usefixtures("prefect_api")


@task
def work() -> None:
    """Stands between a run and its subflow on the server."""


def begun(client: SyncPrefectClient, parent: UUID | None = None) -> UUID:
    flow, step = nightly, None
    if parent is not None:
        flow, step = ingest, client.create_task_run(work, parent, dynamic_key=uuid4().hex).id
    run = client.create_flow_run(flow, parameters={"parameters": {}}, parent_task_run_id=step)
    client.set_flow_run_state(run.id, Running())
    return run.id


@pytest.mark.parametrize("told_by_its_worker", [True, False])
def test_a_killed_night_and_its_subflows_count_as_crashed(told_by_its_worker: bool) -> None:
    with get_client(sync_client=True) as client:
        night = begun(client)
        done, killed = begun(client, night), begun(client, night)
        client.set_flow_run_state(done, Completed())
        if told_by_its_worker:
            client.set_flow_run_state(night, Crashed(message="SIGKILL"))
        crash(night)

        def state(run_id: UUID) -> State:
            found = client.read_flow_run(run_id).state
            assert found is not None
            return found

        assert state(night).is_crashed() and state(killed).is_crashed()
        assert state(done).is_completed()
        assert ("SIGKILL" in str(state(night).message)) == told_by_its_worker
