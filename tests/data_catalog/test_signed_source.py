"""A catalogue whose storage wants signatures, reached through a proxy under its real name."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import planetary_computer
import pytest
from fault_server import Fault, FaultServer, Signing, fault_server
from ingesting import S2
from two_blocks import OPTIONS, area, assert_same, ingest_two_blocks, two_scenes

from data_catalog.catalogue import Catalogue
from data_catalog.errors import SourceError
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.planning import IngestPlan, plan_ingest

pytestmark = pytest.mark.usefixtures("impatient")

PLANETARY_COMPUTER = "http://planetarycomputer.microsoft.com/catalog.json"
PASSWORD = "dxqX7mhs2pWv"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """The scenes, with assets in a storage account."""
    folder = two_scenes(tmp_path / "scenes").folder
    # An account for each test: what was read from an address before need not be read again.
    account = f"http://tiny{time.time_ns()}.blob.core.windows.net"
    point_assets_to(folder, account + "/sentinel-2-l2a/{scene}/{key}.tif")
    return folder


@pytest.fixture
def undisturbed(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue.create(tmp_path / "undisturbed")
    ingest_two_blocks(catalogue, str(two_scenes(tmp_path / "files").folder))
    return catalogue


@pytest.fixture
def server(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with fault_server(scenes, signing=Signing("*.tif", uses=7)) as running:
        monkeypatch.setenv("http_proxy", running.address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        settings = planetary_computer.settings.Settings.get()
        monkeypatch.setattr(settings, "sas_url", f"{running.address}/token")
        planetary_computer.sas.TOKEN_CACHE.clear()
        yield running
        planetary_computer.sas.TOKEN_CACHE.clear()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Everything that any library logs."""
    root, handler = logging.getLogger(), logging.FileHandler(tmp_path / "run.log")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield tmp_path / "run.log"
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


def point_assets_to(folder: Path, address: str) -> None:
    for path in folder.glob("*/*/*.json"):
        item = json.loads(path.read_text())
        for key, asset in item["assets"].items():
            asset["href"] = address.format(scene=item["id"], key=key)
        path.write_text(json.dumps(item))


def holds(folder: Path, *secrets: str) -> list[Path]:
    """The files that hold one of the secrets, in their content or name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and all(secrets)
    return [
        path
        for path in files
        if any(secret in str(path) or secret.encode() in path.read_bytes() for secret in secrets)
    ]


def test_a_token_that_expires_in_mid_run_is_replaced(
    server: FaultServer, catalogue: Catalogue, undisturbed: Catalogue
) -> None:
    assert ingest_two_blocks(catalogue, PLANETARY_COMPUTER).failures == {}
    assert {"206", "403"} == {request.outcome for request in server.requests("*.tif")}
    assert 2 <= len(server.tokens()) <= 4
    assert_same(catalogue, undisturbed)


def test_nothing_that_a_signed_run_writes_holds_a_token(
    server: FaultServer, catalogue: Catalogue, log: Path
) -> None:
    server.misbehave(
        Fault("*/east/B04.tif", "status", status=404, at_most=None),
        Fault("*/west/*.tif", "reset", at_most=1),
        Fault("*/west/*.tif", "status", status=429, at_most=1),
    )
    plan = plan_ingest(catalogue, PLANETARY_COMPUTER, S2, area(), "2024", **OPTIONS)
    assert plan.profile == "planetary-computer"
    folder = plan.save(catalogue)
    reports = [ingest_block(folder, block_id) for block_id in plan.block_ids]
    assert [list(report.failures) for report in reports] == [[], ["east"]]
    # What a run that is killed now would leave, and then what is published.
    assert (folder / "plan.json").exists()
    assert holds(catalogue.root, *server.tokens()) == []
    publish_segment(catalogue, plan)
    assert holds(catalogue.root, *server.tokens()) == []
    assert ".blob.core.windows.net" in log.read_text()
    assert holds(log.parent, *server.tokens()) == []
    assert not any(token in f"{reports}" for token in server.tokens())


@pytest.mark.parametrize(
    "address",
    [
        "{server}/sentinel-2-l2a/{{scene}}/{{key}}.tif?se=2024&sig={password}",
        "{server}/sentinel-2-l2a/{{scene}}/{{key}}.tif?X-Amz-Credential=a&X-Amz-Signature={password}",
        "{user}/sentinel-2-l2a/{{scene}}/{{key}}.tif",
        "/vsicurl/{user}/sentinel-2-l2a/{{scene}}/{{key}}.tif?sig={password}",
        "/vsiaz/container/{{scene}}/{{key}}.tif?sig={password}",
        "/vsis3/bucket/{{scene}}/{{key}}.tif?X-Amz-Security-Token={password}",
        "wasbs://container@127.0.0.1/{{scene}}/{{key}}.tif?sig={password}",
        "abfss://container@127.0.0.1/{{scene}}/{{key}}.tif?sig={password}",
    ],
    ids=["SAS", "S3", "user", "vsicurl", "vsiaz", "vsis3", "wasbs", "abfss"],
)
def test_nothing_holds_the_secrets_of_addresses_that_come_signed(
    address: str, tmp_path: Path, catalogue: Catalogue, undisturbed: Catalogue, log: Path
) -> None:
    folder = two_scenes(tmp_path / "scenes").folder
    written = log.parent / "written"
    with fault_server(folder) as server:
        user = server.address.replace("://", f"://joe:{PASSWORD}@")
        point_assets_to(folder, address.format(server=server.address, user=user, password=PASSWORD))
        where = f"{user}/catalog.json?token={PASSWORD}"
        plan = plan_ingest(catalogue, where, S2, area(), "2024", **OPTIONS)
        saved = plan.save(catalogue)
        reports = [ingest_block(saved, block_id) for block_id in plan.block_ids]
        assert holds(catalogue.root, PASSWORD) == []
        publish_segment(catalogue, IngestPlan.load(saved))
        with pytest.raises(SourceError) as nothing:
            plan_ingest(catalogue, f"{user}/none.json?sig={PASSWORD}", S2, area(), "2024")
    written.mkdir()
    (written / "told.txt").write_text(f"{reports} {nothing.value}")
    (written / "log.txt").write_bytes(log.read_bytes())
    assert holds(catalogue.root, PASSWORD) == [] and holds(written, PASSWORD) == []
    if address.startswith(("{server}", "{user}", "/vsicurl")):
        assert_same(catalogue, undisturbed)
    else:
        assert all(report.failures for report in reports)
