"""A run on a source that wants signatures, with the Prefect server that keeps its account."""

import os
import subprocess
import sys
import time
from pathlib import Path

from fault_server import Fault, Signing, fault_server
from test_signed_source import PLANETARY_COMPUTER, holds, point_assets_to
from two_blocks import area, two_scenes


def test_neither_the_server_nor_the_terminal_nor_the_catalogue_learns_a_token(
    tmp_path: Path,
) -> None:
    scenes = two_scenes(tmp_path / "scenes").folder
    account = f"http://tiny{time.time_ns()}.blob.core.windows.net"
    point_assets_to(scenes, account + "/sentinel-2-l2a/{scene}/{key}.tif")
    written = tmp_path / "written"
    written.mkdir()
    with fault_server(scenes, signing=Signing("*.tif", uses=7)) as server:
        server.misbehave(Fault("*/east/B04.tif", "status", status=404, at_most=None))
        arguments = ["--catalog", str(written / "catalogue"), "--source", PLANETARY_COMPUTER]
        places = " ".join(f"{point.x:.7f},{point.y:.7f}" for point in area().geoms)
        arguments += ["--area", places, "--period", "2024-01-01/2024-12-31", "--tile-size", "480"]
        arguments += ["--sensors", "sentinel-2-l2a", "--bands", "red", "swir16"]
        environment = {name: v for name, v in os.environ.items() if not name.startswith("PREFECT")}
        environment |= {
            "http_proxy": server.address,
            "no_proxy": "127.0.0.1,localhost",
            "PC_SDK_SAS_URL": f"{server.address}/token",
            "PREFECT_HOME": str(written / "prefect"),
            "PREFECT_LOGGING_LEVEL": "DEBUG",
        }
        with (written / "terminal.txt").open("w") as terminal:
            subprocess.run(
                [Path(sys.executable).with_name("rshash"), "ingest", *arguments],
                env=environment,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=240,
            )
        assert "east" in (written / "terminal.txt").read_text()
        assert holds(written / "prefect", "east")
        assert holds(written, *server.tokens()) == []
