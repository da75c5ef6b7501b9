"""The server that misbehaves does so as it was told, and the same way again."""

import http.client
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer, Signing, fault_server

CONTENT = bytes(range(256))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.tif").write_bytes(CONTENT)
    (tmp_path / "b.tif").write_bytes(CONTENT)
    return tmp_path


def fetch(address: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def outcomes(server: FaultServer) -> list[str]:
    return [request.outcome for request in server.requests()]


def test_without_faults_it_serves_files_and_ranges(folder: Path) -> None:
    with fault_server(folder) as server:
        assert fetch(f"{server.address}/a.tif") == (200, CONTENT)
        assert fetch(f"{server.address}/a.tif", Range="bytes=250-300") == (206, CONTENT[250:])
        assert fetch(f"{server.address}/a.tif", Range="bytes=256-") == (416, b"")
        assert fetch(f"{server.address}/none.tif")[0] == 404
        head = urllib.request.Request(f"{server.address}/a.tif", method="HEAD")
        with urllib.request.urlopen(head) as answer:
            assert (answer.headers["Content-Length"], answer.read()) == ("256", b"")
        assert outcomes(server) == ["200", "206", "416", "404", "200"]


def test_each_path_is_hit_as_often_as_said(folder: Path) -> None:
    faults = (
        Fault("*/a.tif", "status", status=429, retry_after=7, at_most=1, after=1),
        Fault("*/b.tif", "reset", at_most=1),
        Fault("*/b.tif", "truncated", at_most=1),
    )
    with fault_server(folder, faults) as server:
        assert [fetch(f"{server.address}/a.tif")[0] for _ in range(3)] == [200, 429, 200]
        with pytest.raises(OSError):
            fetch(f"{server.address}/b.tif")
        with pytest.raises(http.client.IncompleteRead):
            fetch(f"{server.address}/b.tif")
        assert fetch(f"{server.address}/b.tif") == (200, CONTENT)
        assert outcomes(server) == ["200", "429", "200", "reset", "truncated", "200"]
        server.misbehave()
        assert fetch(f"{server.address}/a.tif")[0] == 200 and outcomes(server) == ["200"]


def test_chance_is_the_same_for_the_same_seed(folder: Path) -> None:
    seen = []
    fault = Fault("*", "status", 0.5, at_most=None)
    with fault_server(folder) as server:
        for seed in (1, 1, 2):
            server.misbehave(fault, seed=seed)
            seen.append([fetch(f"{server.address}/a.tif")[0] for _ in range(20)])
    assert seen[0] == seen[1] != seen[2]
    assert 3 < seen[0].count(503) < 17


def test_bodies_share_a_line(folder: Path) -> None:
    line = Fault("*", "line", at_most=None, seconds=0.0, rate=len(CONTENT) / 0.1)
    with fault_server(folder, [line]) as server, ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        found = list(pool.map(fetch, [f"{server.address}/a.tif"] * 4))
        assert time.monotonic() - began > 0.39
        assert found == [(200, CONTENT)] * 4


def test_a_token_is_good_for_so_many_requests(folder: Path) -> None:
    with fault_server(folder, signing=Signing("*.tif", uses=2)) as server:
        assert fetch(f"{server.address}/a.tif")[0] == 403
        assert b"msft:expiry" in fetch(f"{server.address}/token/account/container")[1]
        (token,) = server.tokens()
        assert [fetch(f"{server.address}/a.tif?sig={token}")[0] for _ in range(3)] == [
            200,
            200,
            403,
        ]


def test_it_stands_for_other_hosts_and_passes_on_what_it_lacks(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with fault_server(folder) as files:
        with fault_server(empty, upstream=files.address) as server:
            assert fetch(f"{server.address}/a.tif") == (200, CONTENT)
            assert fetch(f"{server.address}/none")[0] == 404
        proxy = urllib.request.ProxyHandler({"http": files.address})
        with urllib.request.build_opener(proxy).open("http://storage.example/a.tif") as answer:
            assert answer.read() == CONTENT


def test_it_ends_with_the_process_that_started_it(folder: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from fault_server import fault_server\n"
        f"with fault_server(Path({str(folder)!r})) as server:\n"
        "    print(server.address, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert killed.returncode == -9
    with pytest.raises(OSError):
        for _ in range(100):  # it may need a moment
            fetch(killed.stdout.strip())
