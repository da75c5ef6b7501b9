"""How fast is an exact search of a thousand million codes on a GPU?

The 100 nearest of random codes of 64 bit, one query at a time, against the time that the same
device takes to read as many bytes (a sum of them), which no search of all codes can beat.

    python benchmarks/gpu_search.py --codes 1e9
    python benchmarks/gpu_search.py --codes 1e7 --device cpu
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rshash.device_search import DeviceCodes

K, QUERIES = 100, 20


def seconds(job: Callable[[], object], device: torch.device) -> float:
    taken = []
    for _ in range(QUERIES):
        started = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def random_codes(count: int, device: torch.device) -> torch.Tensor:
    codes = torch.empty((count, 1), dtype=torch.int64, device=device)
    for part in codes.split(1 << 26):
        part.random_(-(2**63), None)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=float, default=1e9)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here: run it with --device cpu --codes 1e7 instead.")
    codes = random_codes(int(options.codes), device)
    index = DeviceCodes(codes, 64)
    query = np.random.default_rng(0).integers(0, 2**64, (1, 1), np.uint64)
    index.nearest(query, K)
    search = seconds(lambda: index.nearest(query, K), device)
    read = seconds(lambda: codes.sum(), device)
    rate = codes.nbytes / 1e9
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{device}"
    print(f"{len(index):,} codes of 64 bit on {name}, the {K} nearest, median of {QUERIES}")
    print(f"{'':20}{'ms':>10}{'GB/s':>10}{'of reading':>12}")
    for title, taken in (("search", search), ("reading alone", read)):
        print(f"{title:20}{1e3 * taken:>10.2f}{rate / taken:>10.0f}{read / taken:>12.2f}")
    if options.json:
        options.json.write_text(json.dumps({"search_s": search, "read_s": read}))


if __name__ == "__main__":
    main()
