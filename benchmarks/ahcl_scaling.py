"""What does AHCL cost as the database grows, and how much less than the textbook form?

1. A training step (forward, loss, backward, Adam) with databases of 10^4 to 10^7 tiles, in turns.
2. Loss, gradient and update of all codes at 10^5 tiles, against the dense form with its similarity
   matrix. The whole matrix would be 40 GB: the dense form makes the rows of the sampled tiles,
   batch by batch, in single precision, and is given r. Both forms start from the same codes: once
   from codes as training meets them, five updates after its start, and once from random ones,
   which never repeat and which training never meets.
3. A whole update of 10^7 codes, in a process of its own: seconds, and peak memory beyond the codes,
   the index of label sets included.

    python benchmarks/ahcl_scaling.py --threads 2 --json ahcl_scaling.json
    python benchmarks/ahcl_scaling.py --quick
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rshash.codes import Words, unpack
from rshash.head import HashHead
from rshash.similarity import LabelSets, SimilarityLoss, sum_codes, update_codes
from rshash.training import optimise

BITS = 64
CLASSES = 30
SAMPLED = 2000
BATCH = 128
WEIGHT = 200.0


class Database:
    """Random single labels and codes of n tiles, and outputs for a sample of them.

    Outputs resemble a code of the tile's class, as those of a network that has learned a little.
    """

    def __init__(self, n: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        classes = random.integers(CLASSES, size=n, dtype=np.int32)
        counts = np.bincount(classes, minlength=CLASSES)
        similar = int((counts**2).sum())
        self.label_sets = LabelSets(
            np.eye(CLASSES, dtype=bool), classes, counts, similar / (n**2 - similar)
        )
        self.codes: Words = random.integers(0, 2**64, (n, BITS // 64), dtype=np.uint64)
        self._class_codes = random.choice([-0.8, 0.8], (CLASSES, BITS))
        self._random = random
        self.sample()

    def sample(self) -> None:
        """Draws tiles and their outputs anew."""
        n = len(self.codes)
        self.sampled = np.sort(self._random.choice(n, min(n, SAMPLED), replace=False))
        noise = 0.5 * self._random.standard_normal((len(self.sampled), BITS))
        self.outputs = np.tanh(self._class_codes[self.label_sets.of_tile[self.sampled]] + noise)

    def loss(self) -> SimilarityLoss:
        sums = sum_codes(self.codes, BITS, self.label_sets)
        return SimilarityLoss(self.codes, BITS, self.label_sets, sums, self.sampled, WEIGHT)

    def update(self) -> None:
        update_codes(self.codes, BITS, self.label_sets, self.sampled, self.outputs, WEIGHT)

    def train(self) -> None:
        """Brings the codes to where training has them soon after its start."""
        for _ in range(5):
            self.sample()
            self.update()


def training_step(loss: SimilarityLoss, sampled: int) -> Callable[[], None]:
    """A step of the network as `train_ahcl` takes it."""
    torch.manual_seed(0)
    module = nn.ModuleDict({"head": HashHead(1024, BITS), "classes": nn.Linear(BITS, CLASSES)})
    optimiser = torch.optim.Adam(module.parameters())
    features, classes = torch.randn(BATCH, 1024), torch.randint(CLASSES, (BATCH,))
    rows = torch.randint(sampled, (BATCH,))

    def step() -> None:
        outputs = module["head"](features)
        semantic = nn.functional.cross_entropy(module["classes"](outputs), classes)
        optimise(loss(outputs, rows) + 20 * semantic, optimiser, module)

    return step


def measure_steps(sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    steps = {}
    for n in sizes:
        database = Database(n)
        steps[n] = training_step(database.loss(), len(database.sampled))
    seconds: dict[int, list[float]] = {n: [] for n in sizes}
    for _ in range(rounds):
        for n, step in steps.items():
            seconds[n].append(_seconds(step))
    medians = {n: float(np.median(values[rounds // 10 :])) for n, values in seconds.items()}
    return [
        {"tiles": n, "milliseconds": 1e3 * median, "ratio": median / medians[sizes[0]]}
        for n, median in medians.items()
    ]


def dense_loss(database: Database, signs: torch.Tensor, outputs: torch.Tensor) -> float:
    """Loss and gradient of all sampled tiles, batch by batch."""
    total = 0.0
    places = torch.from_numpy(database.sampled)
    for rows in torch.arange(len(outputs)).split(BATCH):
        u = outputs[rows].requires_grad_()
        target = BITS * torch.from_numpy(_dense_rows(database, rows.numpy()))
        fit = (u @ signs.T - target).square().sum()
        loss = fit + WEIGHT * (signs[places[rows]] - u).square().sum()
        loss = loss / (len(signs) * len(rows))
        loss.backward()
        total += loss.item() * len(rows)
    return total / len(outputs)


def dense_update(database: Database, signs: np.ndarray) -> np.ndarray:
    u = database.outputs.astype(np.float32)
    q = np.zeros_like(signs)
    for start in range(0, len(u), BATCH):
        rows = slice(start, start + BATCH)
        q -= 2 * BITS * _dense_rows(database, np.arange(len(u))[rows]).T @ u[rows]
    q[database.sampled] -= 2 * WEIGHT * u
    v = signs.copy()
    for k in range(BITS):
        rest = np.arange(BITS) != k
        decided = q[:, k] + 2 * v[:, rest] @ (u[:, rest].T @ u[:, k])
        v[:, k] = np.where(decided <= 0, 1, -1)
    return v


def _dense_rows(database: Database, rows: np.ndarray) -> np.ndarray:
    """Rows of the similarity matrix, float32 (rows, n)."""
    sets = database.label_sets
    shared = sets.of_tile[database.sampled[rows], None] == sets.of_tile[None]
    return np.where(shared, np.float32(1), np.float32(-sets.dissimilarity))


def fast_loss(database: Database, outputs: torch.Tensor) -> float:
    """Loss and gradient of all sampled tiles, batch by batch, the sums of the codes included."""
    loss, total = database.loss(), 0.0
    for rows in torch.arange(len(outputs)).split(BATCH):
        batch = loss(outputs[rows].requires_grad_(), rows)
        batch.backward()
        total += batch.item() * len(rows)
    return total / len(outputs)


def compare_with_dense(n: int, repeats: int) -> list[dict[str, Any]]:
    database = Database(n)
    found = []
    for state in ("random codes", "codes in training"):
        if state == "codes in training":
            database.train()
        before = database.codes.copy()
        signs = unpack(before, BITS).astype(np.float32)
        outputs = torch.from_numpy(database.outputs.astype(np.float32))
        tensor = torch.from_numpy(signs)
        losses = {
            "dense": dense_loss(database, tensor, outputs),
            "fast": fast_loss(database, outputs),
        }
        assert np.isclose(losses["dense"], losses["fast"], rtol=1e-4), losses
        dense_seconds = [
            _seconds(lambda tensor=tensor, outputs=outputs: dense_loss(database, tensor, outputs)),
            _seconds(lambda signs=signs: dense_update(database, signs)),
        ]
        fast_seconds = [np.inf, np.inf]
        for _ in range(repeats):
            database.codes[:] = before
            times = [
                _seconds(lambda outputs=outputs: fast_loss(database, outputs)),
                _seconds(database.update),
            ]
            fast_seconds = np.minimum(fast_seconds, times).tolist()
        differing = float((unpack(database.codes, BITS) != dense_update(database, signs)).mean())
        assert differing < 1e-5, differing
        found.append(
            {
                "state": state,
                "tiles": n,
                "dense_loss_s": dense_seconds[0],
                "dense_update_s": dense_seconds[1],
                "loss_s": fast_seconds[0],
                "update_s": fast_seconds[1],
                "ratio": sum(dense_seconds) / sum(fast_seconds),
            }
        )
    return found


def measure_update(n: int, threads: int) -> list[dict[str, Any]]:
    """Updates of n codes, random at first, with the process's peak memory beyond the codes."""
    torch.set_num_threads(threads)
    codes_bytes = n * BITS // 8
    _ = Database(SAMPLED).update()
    start = _resident_bytes()
    database = Database(n)
    found = []
    for state in ("random codes", "codes in training"):
        if state == "codes in training":
            database.train()
        seconds = _seconds(database.update)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found.append(
            {
                "state": state,
                "tiles": n,
                "seconds": seconds,
                "beyond_codes_mib": (peak - start - codes_bytes) / 2**20,
            }
        )
    return found


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    cells = [[_cell(value) for value in row.values()] for row in rows]
    table = [list(rows[0]), *cells]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else f"{value:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    largest, middle, rounds = (10**5, 10**4, 30) if arguments.quick else (10**7, 10**5, 200)
    sizes = [10**exponent for exponent in range(4, len(str(largest)))]
    # First, while this process is small and its memory is not the child's.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        updates = pool.apply(measure_update, (largest, arguments.threads))
    steps = measure_steps(sizes, rounds)
    dense = compare_with_dense(middle, repeats=3)
    _print(f"A training step of {BATCH} tiles, {BITS} bit", steps)
    _print(f"Loss and update of {SAMPLED} sampled tiles, dense and factorised", dense)
    _print(f"Update of all codes, {BITS} bit, {arguments.threads} threads", updates)
    if arguments.json:
        figures = {"training_step": steps, "against_dense": dense, "update": updates}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
