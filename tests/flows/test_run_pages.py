"""What a failed run tells: on its page, and in a notice."""

import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prefect import Flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.flow_engine import run_flow
from prefect.states import Crashed, Paused, Running, State

from flows.approval import decision
from flows.ingest import ingest
from flows.nightly import nightly
from flows.parameters import IngestFlowParameters, NightlyParameters
from flows.run_pages import tell_of_failure

pytestmark = pytest.mark.usefixtures("prefect_api")

AUTOMATIONS = Path(__file__).parents[2] / "automations.yaml"
NOBODY = "00000000-0000-0000-0000-000000000000"
HOURS_26 = 26 * 3600


@pytest.fixture
def notices(tmp_path: Path) -> Any:
    """The notices that a webhook gets by the automations of the project."""
    got: list[dict[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    block_id = CustomWebhookNotificationBlock(
        name="test",
        url=f"http://127.0.0.1:{server.server_port}/",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
    ).save("notices", overwrite=True)
    file = tmp_path / "notices.yaml"
    text = AUTOMATIONS.read_text().replace(NOBODY, str(block_id))
    assert f"within: {HOURS_26}" in text
    # As short as Prefect allows.
    file.write_text(text.replace(f"within: {HOURS_26}", "within: 10"))
    command = [sys.executable, "-m", "prefect", "automation", "create", "--from-file", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    yield got
    with get_client(sync_client=True) as client:
        for automation in client.request("POST", "/automations/filter", json={}).json():
            client.request("DELETE", "/automations/{id}", path_params={"id": automation["id"]})
    server.shutdown()
    server.server_close()


def subjects(notices: list[dict[str, str]], wanted: str, seconds: float = 120) -> list[str]:
    """Subjects of the notices, once one of them is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        found = [notice["subject"] for notice in notices]
        if wanted in found:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def run_deployed(flow: Flow[..., Any], parameters: IngestFlowParameters) -> State[Any]:
    """Runs a flow in this process, as a run of a deployment."""
    with get_client(sync_client=True) as client:
        deployment_id = client.create_deployment(client.create_flow(flow), f"test {flow.name}")
        run = client.create_flow_run_from_deployment(
            deployment_id, parameters={"parameters": parameters.form()}
        )
    state = run_flow(flow, run, {"parameters": parameters}, return_type="state")
    assert isinstance(state, State)
    return state


def page_of_failure(run_id: Any) -> Any:
    found = get_client(sync_client=True).read_artifacts(
        flow_run_filter=FlowRunFilter(id={"any_": [run_id]})
    )
    (shown,) = [artifact for artifact in found if artifact.key == "failure"]
    return shown


def test_a_failed_run_says_what_happened_and_somebody_is_told(
    notices: list[dict[str, str]], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere")
    parameters = IngestFlowParameters(
        area="9,48,9.1,48.1", source=nowhere, catalog=str(tmp_path / "catalogue")
    )
    state = run_deployed(ingest, parameters)
    assert state.is_failed()
    shown = page_of_failure(state.state_details.flow_run_id)
    assert nowhere in shown.description and nowhere in shown.data
    assert "says what to check" in shown.data and "goes on from there" in shown.data
    wanted = "rshash: ingest Failed"
    notice = notices[subjects(notices, wanted).index(wanted)]
    assert nowhere in notice["body"] and str(shown.flow_run_id) in notice["body"]


def test_somebody_is_told_of_codes_that_wait_and_of_nights_that_do_not_come(
    notices: list[dict[str, str]],
) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(decision, parameters={"description": "They failed."})
        client.set_flow_run_state(run.id, Running())
        client.set_flow_run_state(run.id, Paused(timeout_seconds=60))
        wanted = "rshash: codes wait for your decision"
        notice = notices[subjects(notices, wanted).index(wanted)]
        assert f"The {run.name} failed" in notice["body"] and str(run.id) in notice["body"]
        subjects(notices, "rshash: no night for 26 hours")


def test_a_night_whose_stage_fails_is_told_of_once(
    notices: list[dict[str, str]], tmp_path: Path
) -> None:
    parameters = NightlyParameters(
        area="9,48,9.1,48.1", source=str(tmp_path / "nowhere"), catalog=str(tmp_path / "catalogue")
    )
    assert run_deployed(nightly, parameters).is_failed()
    subjects(notices, "rshash: nightly Failed")
    # Events come in their order: the subflow's was there before.
    assert [one for one in subjects(notices, "rshash: nightly Failed") if "Failed" in one] == [
        "rshash: nightly Failed"
    ]


def test_a_crashed_run_says_what_to_do() -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(ingest, parameters={"parameters": {}})
    state = Crashed(message="exited with -9; key?sig=abc")
    tell_of_failure(ingest, run, state)
    shown = page_of_failure(run.id)
    assert "ended from outside" in shown.data and "sig" not in shown.data


def test_a_form_that_is_refused_says_what_to_change(tmp_path: Path) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(ingest)
    given = {"parameters": {"area": "9,98,9.1,98.1", "catalog": str(tmp_path / "catalogue")}}
    state = run_flow(ingest, run, given, return_type="state")
    assert isinstance(state, State) and state.is_failed()
    shown = page_of_failure(run.id)
    assert "outside the tile grid" in shown.description and shown.description.startswith(
        "AreaError: "
    )
    assert "says what to check or to change" in shown.data
