"""How fast is an epoch of MrHash's hashing stage from cached features?

The same network and loss are trained by rshash and by plain loops over a torch DataLoader, with
torch's own dropout, Adam, batches of 128 and float32: over the cached features on disk, whose rows
are read and scaled one by one, and over tensors in memory that are scaled already. What mixed
precision alone gives the plain loop is shown too. All take turns; the best epoch of each counts.
The time of an epoch is taken apart: giving out batches alone, and computing on one batch alone.

    python benchmarks/epoch.py --tiles 9000 --threads 1
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rshash import hashing
from rshash.autoencoder import MultiSourceAutoencoder
from rshash.hashing import Hashing, train_hashing
from rshash.head import HashHead
from rshash.mrhash_settings import MrHashSettings, resolved_settings
from rshash.scaling import FeatureScaling
from rshash.streaming import TileStream
from rshash.training import TrainingRun, autocast, multiplied_precision

DIMENSIONS = 1024
CPU = torch.device("cpu")
PLAIN_BATCH = 128


class CachedRows(Dataset):
    """Rows of cached features, read and scaled one at a time."""

    def __init__(self, paths: list[Path], scalings: list[FeatureScaling]) -> None:
        self.arrays = [np.load(path, mmap_mode="r") for path in paths]
        self.scalings = scalings

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, row: int) -> tuple[int, ...]:
        features = (
            scaling.apply(array[row : row + 1])[0]
            for scaling, array in zip(self.scalings, self.arrays, strict=True)
        )
        return row, *features


class Divergence:
    """As one writes it down, its gradient left to autograd."""

    @staticmethod
    def apply(latent: Tensor, centres: Tensor, target: Tensor) -> Tensor:
        kernel = -torch.log1p(torch.cdist(latent, centres).square())
        return nn.functional.kl_div(torch.log_softmax(kernel, 1), target, reduction="batchmean")


class Dissimilarity:
    """As one writes it down, over all pairs of a batch."""

    @staticmethod
    def apply(outputs: Tensor, directions: Tensor) -> Tensor:
        similarity = outputs @ outputs.T / outputs.shape[1]
        return (similarity - directions @ directions.T).square().mean()


class Workload:
    """A training set with given targets, and the network that learns from it."""

    def __init__(self, settings: MrHashSettings, tiles: int, folder: Path) -> None:
        random = np.random.default_rng(0)
        self.settings, self.tiles = resolved_settings(tiles, settings), tiles
        self.sources = [random.normal(size=(tiles, DIMENSIONS)).astype("f4") for _ in range(2)]
        self.sources = self.sources[: 2 if settings.latent_space == "autoencoder" else 1]
        self.paths = [folder / f"{number}.npy" for number in range(len(self.sources))]
        for path, source in zip(self.paths, self.sources, strict=True):
            np.save(path, source.astype(np.float16))
        self.scalings = [FeatureScaling.fit(source) for source in self.sources]
        self.latent = nn.functional.normalize(torch.randn(tiles, settings.latent), dim=1)

    def network(self, plain_dropout: bool = False) -> Hashing:
        settings = self.settings
        head = HashHead(DIMENSIONS, settings.bits, settings.hidden, settings.dropout)
        if plain_dropout and settings.hidden:
            head.layers[2] = nn.Dropout(settings.dropout)
        autoencoder = None
        if settings.latent_space == "autoencoder":
            autoencoder = MultiSourceAutoencoder([DIMENSIONS] * 2, settings.latent)
        centres = torch.randn(settings.clusters, settings.latent)
        return Hashing(settings, head, centres, autoencoder)

    def tensors(self) -> list[Tensor]:
        scaled = zip(self.scalings, self.sources, strict=True)
        return [torch.from_numpy(scaling.apply(source)) for scaling, source in scaled]

    def stream(self) -> TileStream:
        assert self.settings.batch_size is not None
        return TileStream(
            self.sources,
            self.settings.batch_size,
            seed=0,
            device=CPU,
            transforms=[scaling.apply for scaling in self.scalings],
            precision=torch.float32 if self.given() is None else multiplied_precision(CPU),
        )

    def given(self) -> Tensor | None:
        return None if self.settings.latent_space == "autoencoder" else self.latent


def ours(work: Workload, epochs: int) -> float:
    rates: list[float] = []
    run = TrainingRun(0, lambda step: rates.append(step.tiles_per_second), device=CPU)
    settings = MrHashSettings(**{**vars(work.settings), "hashing_epochs": epochs})
    train_hashing(run, settings, work.network(), work.stream(), work.given())
    return max(rates)


def plain(
    work: Workload,
    data: Dataset,
    workers: int,
    epochs: int,
    mixed_precision: bool = False,
    batch: int = PLAIN_BATCH,
) -> float:
    loader = DataLoader(
        data, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    network = work.network(plain_dropout=True).train()
    optimiser = torch.optim.Adam(
        [p for p in network.parameters() if p.requires_grad], work.settings.learning_rate
    )

    constant = None if work.given() is None else network.targets(work.given(), work.stream())

    def epoch() -> None:
        target = network.targets(None, work.stream()) if constant is None else constant
        total = 0.0
        for rows, *arrays in loader:
            given = None if work.given() is None else work.latent[rows]
            loss = network.loss(arrays, target[rows], given)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()

    precision = autocast if mixed_precision else lambda device: nullcontext()
    with patch.multiple(
        hashing, autocast=precision, _Divergence=Divergence, _Dissimilarity=Dissimilarity
    ):
        return fastest(epoch, work.tiles, epochs)


def fastest(job: Callable[[], object], tiles: int, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - started)
    return tiles / min(seconds)


def exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def compute_alone(work: Workload, batch: int) -> float:
    """Tiles/s of loss, gradient and nothing else, on one batch over and over."""
    network = work.network().train()
    arrays = [tensor[:batch] for tensor in work.tensors()]
    target = torch.softmax(torch.randn(batch, work.settings.clusters), 1)
    given = None if work.given() is None else work.latent[:batch]

    def step() -> None:
        network.loss(arrays, target, given).backward()

    return fastest(step, batch, 30)


def measure(work: Workload, rounds: int, epochs: int) -> dict[str, float]:
    memory = TensorDataset(torch.arange(work.tiles), *work.tensors())
    disk = CachedRows(work.paths, work.scalings)
    methods: dict[str, Callable[[], float]] = {
        "rshash": lambda: ours(work, epochs),
        "DataLoader, cache on disk, 0 workers": lambda: plain(work, disk, 0, epochs),
        "DataLoader, cache on disk, 2 workers": lambda: plain(work, disk, 2, epochs),
        "DataLoader, cache on disk, our batch": lambda: plain(
            work, disk, 0, epochs, batch=work.settings.batch_size or PLAIN_BATCH
        ),
        "DataLoader, tensors, 0 workers": lambda: plain(work, memory, 0, epochs),
        "DataLoader, tensors, 2 workers": lambda: plain(work, memory, 2, epochs),
        "DataLoader, tensors, mixed precision": lambda: plain(work, memory, 0, epochs, True),
    }
    best = dict.fromkeys(methods, 0.0)
    for _ in range(rounds):
        for name, method in methods.items():
            best[name] = max(best[name], method())
    stream, loader = work.stream(), DataLoader(memory, PLAIN_BATCH, shuffle=True)
    best["batches alone, rshash"] = fastest(lambda: exhaust(stream.epoch(1)), work.tiles, 5)
    best["batches alone, DataLoader, tensors"] = fastest(lambda: exhaust(loader), work.tiles, 5)
    best["loss and gradient alone, our batch"] = compute_alone(work, work.settings.batch_size)
    best["loss and gradient alone, batch of 128"] = compute_alone(work, PLAIN_BATCH)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=9000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in {
            "defaults": MrHashSettings(),
            "paper": MrHashSettings.paper(),
        }.items():
            work = Workload(settings, options.tiles, Path(folder))
            figures[name] = measure(work, options.rounds, options.epochs)
            precision = str(multiplied_precision(CPU)).removeprefix("torch.")
            print(f"\n{name}: {options.tiles:,} tiles, {options.threads} threads, in {precision}")
            print(f"{'':40}{'tiles/s':>10}{'rshash is':>12}")
            for method, rate in figures[name].items():
                print(f"{method:40}{rate:>10,.0f}{figures[name]['rshash'] / rate:>11.2f}x")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
