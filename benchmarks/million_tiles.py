"""How much memory does training on a million tiles take?

Features of two sources (1,024 dimensions, float16) are made up and written to disk. A process of
its own trains MrHash on them; another one only imports what training imports. Printed are the
peaks of their memory, against the limit and against the features held in memory as float32.

    python benchmarks/million_tiles.py --tiles 1000000 --folder .
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

LIMIT = 4.0
DIMENSIONS = 1024
PLACES = 200
BLOCK = 8192
GIB = 1 << 30

TRAIN = """
import json, resource, sys, time
from rshash.mrhash import train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.streaming import FeatureFile
paths, settings = json.loads(sys.argv[1]), json.loads(sys.argv[2])
started, epochs = time.perf_counter(), []
if paths:
    train_mrhash(
        [FeatureFile.open(path) for path in paths],
        MrHashSettings(**settings),
        progress=lambda step: epochs.append((step.stage, step.tiles_per_second)),
    )
print(json.dumps({
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "seconds": time.perf_counter() - started,
    "epochs": epochs,
}))
"""


def write_features(folder: Path, tiles: int) -> list[str]:
    """Noisy copies of some places' features."""
    from rshash.streaming import FeatureFile

    random = np.random.default_rng(0)
    places = random.integers(PLACES, size=tiles)
    paths = []
    for name in ("primary", "secondary"):
        centres = random.normal(size=(PLACES, DIMENSIONS)).astype(np.float32)
        path = folder / f"{name}.npy"
        with FeatureFile.create(path, (tiles, DIMENSIONS), np.float16) as writer:
            for start in range(0, tiles, BLOCK):
                rows = centres[places[start : start + BLOCK]]
                writer.append(rows + random.standard_normal(rows.shape, np.float32))
        paths.append(str(path))
    return paths


def run(paths: list[str], settings: dict[str, object]) -> dict[str, object]:
    command = [sys.executable, "-c", TRAIN, json.dumps(paths), json.dumps(settings)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def median_rates(steps: list[tuple[str, float]]) -> list[tuple[str, float]]:
    stages = dict.fromkeys(stage for stage, _ in steps)
    return [(name, median(rate for stage, rate in steps if stage == name)) for name in stages]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=1, help="of every stage")
    parser.add_argument("--latent-space", default="neighbours")
    parser.add_argument("--folder", type=Path, help="where the features are written for a while")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    settings = {
        "latent_space": arguments.latent_space,
        "hashing_epochs": arguments.epochs,
        "autoencoder_epochs": arguments.epochs,
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        paths = write_features(Path(folder), arguments.tiles)
        print(f"{arguments.tiles:,} tiles written in {time.perf_counter() - started:.0f} s")
        idle, training = run([], {}), run(paths, settings)
    peak = training["peak"] / GIB
    in_memory = 2 * arguments.tiles * DIMENSIONS * 4 / GIB
    rows = [
        ("features in memory, float32", f"{in_memory:.2f} GiB"),
        ("imports alone, peak", f"{idle['peak'] / GIB:.2f} GiB"),
        ("training, peak", f"{peak:.2f} GiB"),
        ("limit", f"{LIMIT:.2f} GiB"),
        ("training / features in memory", f"{peak / in_memory:.2f}"),
        ("training / limit", f"{peak / LIMIT:.2f}"),
        ("training", f"{training['seconds']:.0f} s"),
        *((stage, f"{rate:,.0f} tiles/s") for stage, rate in median_rates(training["epochs"])),
    ]
    for name, value in rows:
        print(f"{name:32}{value:>18}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"tiles": arguments.tiles, **dict(rows)}, indent=1))


if __name__ == "__main__":
    main()
