"""What a run tells a Prefect server that is out of reach."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from fault_server import Fault, FaultServer, fault_server

from flows.reporting import tell


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "artifact").write_text("shown")
    with fault_server(folder) as running:
        yield running


def ask(address: str) -> str:
    return httpx.get(address).raise_for_status().text


def test_what_is_told_arrives_once_the_server_is_there_again(server: FaultServer) -> None:
    server.misbehave(
        Fault("/artifact", "status", at_most=1), Fault("/artifact", "reset", at_most=1)
    )
    assert tell(lambda: ask(f"{server.address}/artifact"), waits=(0.01, 0.01)) == "shown"
    assert [one.outcome for one in server.requests()] == ["503", "reset", "200"]


def test_a_server_that_stays_away_ends_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/artifact"
        assert tell(lambda: ask(address), waits=(0.01,)) is None
    assert "out of reach" in capsys.readouterr().err


def test_what_the_server_refuses_is_an_error(server: FaultServer) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        tell(lambda: ask(f"{server.address}/nothing"))
