"""How much of the bare backbone's speed is left when codes are made of published pixels?

A segment of random tiles is written as ingest writes it: six bands of 192 x 192 pixels in Zarr.
Every repeat times the backbone on inputs that lie ready in memory, in the batches that encoding
uses, and then `encode_observations` from Zarr to codes without any cached feature. Given are the
medians, and the median of the repeats' ratios: of the time that passed, and of processor time.
Other programs on the machine disturb both: the ratio of the best times is what they left alone.

    python benchmarks/encode.py --threads 2 --checkpoint ../shared/data/mobilenetv1_100-...
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import geopandas as gpd
import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from data_catalog.catalogue import Catalogue
from data_catalog.encoding import encode_observations
from data_catalog.grid import Tile, Zone, footprints
from data_catalog.segments import BLOCK_ROWS, stage_pixels, write_block
from data_catalog.sensors import get_sensor
from rshash.features import FrozenExtractor, make_extractor
from rshash.head import HashHead
from rshash.model import Model
from rshash.scaling import FeatureScaling

SENSOR, SIZE, SEGMENT = "sentinel-2-l2a", 1920, "benchmark"
MOBILENET = {"architecture": "mobilenetv1_100", "options": {"pad_type": "same", "bn_eps": 1e-3}}


@dataclass(frozen=True)
class Timing:
    passed: float
    processor: float


def timed(work: Callable[[], object]) -> Timing:
    start = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Timing(time.perf_counter() - start[0], time.process_time() - start[1])


def make_segment(root: Path, blocks: int) -> tuple[Catalogue, gpd.GeoDataFrame]:
    catalogue = Catalogue.create(root)
    sensor = get_sensor(SENSOR)
    folder = root / f"tiles-{SENSOR}" / SEGMENT
    array = stage_pixels(folder, blocks, sensor, sensor.default_bands, SIZE)
    random = np.random.default_rng(0)
    shape = (BLOCK_ROWS, *array.shape[1:])
    for block in range(blocks):
        # Land is smooth, sensors are noisy: about as compressible as real scenes.
        smooth = gaussian_filter(random.standard_normal(shape, np.float32), (0, 0, 4, 4))
        pixels = 1500 + 8000 * smooth + 30 * random.standard_normal(shape, np.float32)
        write_block(folder, array, block, pixels.clip(1, 10000).astype(np.uint16))
    tiles = [Tile(Zone(32, "N"), 176 + i % 8, 2888 + i // 8, SIZE) for i in range(array.shape[0])]
    table = pd.DataFrame(
        {
            "tile_id": [tile.id for tile in tiles],
            "segment_id": SEGMENT,
            "row": range(len(tiles)),
            "datetime": pd.Timestamp("2024-06-01", tz="UTC"),
            "clear_fraction": np.float32(1),
            "source_scenes": [["S2A"]] * len(tiles),
        }
    )
    return catalogue, gpd.GeoDataFrame(table, geometry=footprints(tiles), crs="OGC:CRS84")


def make_model(extractor: FrozenExtractor) -> Model:
    scaling = FeatureScaling(np.zeros(extractor.dimensions, np.float32))
    head = HashHead(extractor.dimensions, 64).eval()
    return Model("mrhash", SENSOR, (), SIZE, extractor, scaling, head)


def bare_forward(extractor: FrozenExtractor, tiles: int) -> Callable[[], None]:
    size = extractor.tiles_at_once
    side = SIZE // get_sensor(SENSOR).resolution
    pixels = torch.rand(min(size, tiles), len(extractor.bands), side, side) * 0.3
    inputs = extractor.prepare(pixels.to(extractor.device))

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, tiles, size):
                extractor.forward(extractor.network, inputs[: min(size, tiles - start)])

    return run


def measure(
    extractor: FrozenExtractor, catalogue: Catalogue, observations: gpd.GeoDataFrame, repeats: int
) -> dict[str, object]:
    model = make_model(extractor)
    n = len(observations)
    forward = bare_forward(extractor, n)

    def encode() -> None:
        shutil.rmtree(catalogue.root / ".cache", ignore_errors=True)
        rows = encode_observations(catalogue, model, observations)
        assert len(rows) == n

    forward()
    pairs = [(timed(forward), timed(encode)) for _ in range(repeats)]
    return {
        "backbone": extractor.spec().get("architecture", extractor.spec()["kind"]),
        "device": device_name(extractor.device),
        "tiles": n,
        "bare forward, tiles/s": n / median(bare.passed for bare, _ in pairs),
        "encoding, tiles/s": n / median(whole.passed for _, whole in pairs),
        "share": median(bare.passed / whole.passed for bare, whole in pairs),
        "share of best": min(bare.passed for bare, _ in pairs)
        / min(whole.passed for _, whole in pairs),
        "share of processor time": median(
            bare.processor / whole.processor for bare, whole in pairs
        ),
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def specs(folder: Path, checkpoint: Path | None) -> list[dict[str, object]]:
    if checkpoint is None or not checkpoint.is_file():
        print("No checkpoint of MobileNet: its weights are random.")
        torch.manual_seed(0)
        network = timm.create_model(
            MOBILENET["architecture"], num_classes=0, **MOBILENET["options"]
        )
        checkpoint = folder / "mobilenet.safetensors"
        save_file(network.state_dict(), checkpoint)
    return [
        {"kind": "mosaiks", "bands": list(get_sensor(SENSOR).default_bands)},
        {"kind": "timm", "checkpoint": str(checkpoint), **MOBILENET},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=4, help="of 64 tiles")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoint", type=Path, help="MobileNet v1's weights")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with tempfile.TemporaryDirectory() as folder:
        catalogue, observations = make_segment(Path(folder) / "catalogue", arguments.blocks)
        rows = []
        for spec in specs(Path(folder), arguments.checkpoint):
            for device in devices:
                extractor = make_extractor(spec)
                assert isinstance(extractor, FrozenExtractor)
                extractor.to(device)
                rows.append(measure(extractor, catalogue, observations, arguments.repeats))
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
