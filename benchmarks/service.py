"""How many similar-queries per second the service answers over a million codes.

`wrk` (a package of that name in Debian) asks for tiles drawn at random, so that hardly any answer
is in the service's memory; then for a hundred tiles only, which are. On a machine with two cores
wrk and the service share them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.grid import Tile, Zone
from data_catalog.models import publish_model
from rshash.features import make_extractor
from rshash.head import HashHead
from rshash.model import Model
from rshash.scaling import FeatureScaling

ZONES, WEST, COLUMNS, SOUTH = (31, 32, 33), 90, 334, 2400
SCRIPT = """
math.randomseed(%(seed)d)
request = function()
  local zone = 31 + math.random(0, %(zones)d - 1)
  local column = 90 + math.random(0, %(columns)d - 1)
  local row = 2400 + math.random(0, %(rows)d - 1)
  local id = string.format("UTM1920-%%02dN_%%04d_%%04d", zone, column, row)
  return wrk.format("GET", "/tiles/" .. id .. "/similar?k=10")
end
"""


def publish(folder: Path, tiles: int, distinct: int) -> int:
    rows = max(1, tiles // (len(ZONES) * COLUMNS))
    ids = [
        Tile(Zone(zone, "N"), WEST + column, SOUTH + row).id
        for zone in ZONES
        for column in range(COLUMNS)
        for row in range(rows)
    ]
    extractor = make_extractor(
        {"kind": "mosaiks", "bands": ["red", "green", "blue"], "features": 16, "seed": 1}
    )
    torch.manual_seed(0)
    model = Model(
        method="mrhash",
        primary_sensor="sentinel-2-l2a",
        secondary_sensors=(),
        tile_size=1920,
        extractor=extractor,
        scaling=FeatureScaling(np.zeros(extractor.dimensions, np.float32)),
        head=HashHead(extractor.dimensions, 64, hidden=8).eval(),
    )
    drawn = np.random.default_rng(0).integers(0, 2**64, (distinct or len(ids), 1), np.uint64)
    codes = drawn[np.random.default_rng(1).integers(0, len(drawn), len(ids))] if distinct else drawn
    observations = pd.DataFrame(
        {
            "tile_id": ids,
            "datetime": pd.Timestamp("2024-06-01", tz="UTC"),
            "clear_fraction": np.float32(0.9),
            "source_scenes": [["scene"]] * len(ids),
        }
    )
    catalogue = Catalogue.create(folder)
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(observations, codes))
    return rows


def load(
    address: str, seconds: int, connections: int, shape: dict[str, int], folder: Path
) -> dict[str, float]:
    script = folder / "wrk.lua"
    script.write_text(SCRIPT % shape)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    text = subprocess.run([*command, address], check=True, capture_output=True, text=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {
        "queries_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50_ms": _milliseconds(re.search(r"^ +50%\s+(\S+)", text, re.MULTILINE)[1]),
        "p99_ms": _milliseconds(re.search(r"^ +99%\s+(\S+)", text, re.MULTILINE)[1]),
        "failed": int(failed[1]) if failed else 0,
    }


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--distinct", type=int, default=0, help="distinct codes; 0: all random")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="keep the catalogue here, or take it from here")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not there: install it, for example with `apt-get install wrk`.")
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "catalogue"
        rows = max(1, options.tiles // (len(ZONES) * COLUMNS))
        if not (folder / "catalog.json").exists():
            publish(folder, options.tiles, options.distinct)
        command = [str(Path(sys.executable).with_name("rshash")), "serve", "--catalog", str(folder)]
        port = _free_port()
        server = subprocess.Popen([*command, "--port", str(port)])
        address = f"http://127.0.0.1:{port}"
        try:
            _wait(address, server)
            shape = {"seed": 1, "zones": len(ZONES), "columns": COLUMNS, "rows": rows}
            few = {"seed": 2, "zones": 1, "columns": 10, "rows": 10}
            ask = partial(load, address, folder=Path(temporary), connections=options.connections)
            ask(2, shape=shape | {"seed": 3})
            results = {"tiles drawn at random": ask(options.seconds, shape=shape)}
            # Once before: wrk counts a slow answer as often as others would have fitted into it.
            ask(2, shape=few)
            results["a hundred tiles"] = ask(options.seconds, shape=few)
        finally:
            server.terminate()
            server.wait(20)
    print(f"{len(ZONES) * COLUMNS * rows:,} codes of 64 bits, {options.connections} connections")
    for name, result in results.items():
        print(f"{name:24}" + "".join(f"{key} {value:10,.1f}  " for key, value in result.items()))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/healthz").close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit("The service did not start.")


if __name__ == "__main__":
    main()
