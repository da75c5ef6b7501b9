"""Which settings of MrHash win, and by how much: the ablation of docs/learning.md.

Settings are judged by a criterion that takes no labels: what two models agree on that share neither
a training tile nor the source that they see. AID's database tiles, but for 900 held out, are parted
into halves. One model learns from the first half and makes codes of the coarse source; the other
learns from the second half and makes codes of the fine one. The 20 held-out tiles that are nearest
to a held-out tile by the codes of one model should be the nearest by those of the other: the figure
is a mean average precision with ties in expectation, both ways. The mean average precision of the
query tiles, by their labels, of a model of both halves is printed beside it as the result; it
chooses nothing.

Every run is saved as it ends, so that the next call goes on from there.

    python benchmarks/mrhash_ablation.py --bits 16 64 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from quality_aid import Aid, outputs_of
from torch import Tensor

from rshash import hashing, neighbours
from rshash.codes import Words, hamming_distance, pack
from rshash.evaluation import ranking_quality
from rshash.mrhash import MrHashTraining, train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.rankings import CodeRanking
from rshash.report_text import table

ROOT = Path(__file__).parents[1]
HELD_OUT = 900
NEIGHBOURS = 20
"""As in the mean average precision at 20; other numbers are in the results beside it."""

OTHER_NEIGHBOURS = (10, 30, 100)


@dataclass(frozen=True)
class Variant:
    """The default settings but for one thing."""

    name: str
    settings: dict[str, object]
    patches: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    sources: tuple[str, ...] = ("coarse", "fine")
    paper: bool = False

    def settings_for(self, bits: int, seed: int) -> MrHashSettings:
        if self.paper:
            return MrHashSettings.paper(bits=bits, seed=seed)
        return MrHashSettings(bits=bits, seed=seed, **self.settings)


def constant(name: str, value: object) -> Callable[[], contextlib.AbstractContextManager[object]]:
    return lambda: patch.object(neighbours, name, value)


def added_term(
    term: Callable[[Tensor], Tensor], weight: float
) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """The loss with a term of the network outputs (b, bits) added."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        plain = hashing.Hashing.loss

        def loss(self, arrays, target, latent):  # type: ignore[no-untyped-def]
            return plain(self, arrays, target, latent) + weight * term(self.outputs(arrays))

        with patch.object(hashing.Hashing, "loss", loss):
            yield

    return patched


def imbalance(outputs: Tensor) -> Tensor:
    return outputs.mean(0).square().mean()


def correlation(outputs: Tensor) -> Tensor:
    bits = outputs.shape[1]
    products = outputs.T @ outputs / len(outputs)
    return (products - torch.eye(bits)).square().sum() / (bits * (bits - 1))


VARIANTS = [
    Variant("default", {}),
    Variant("paper", {}, paper=True),
    Variant(
        "autoencoder's latent space",
        {"latent_space": "autoencoder", "latent": 64, "sharpening": 2.0},
    ),
    Variant("coarse source alone", {}, sources=("coarse",)),
    Variant("no similarity term", {"similarity_weight": 0.0}),
    Variant("similarity weight 3", {"similarity_weight": 3.0}),
    Variant("similarity weight 30", {"similarity_weight": 30.0}),
    Variant("sharpened pseudo-labels", {"sharpening": 2.0}),
    Variant("softened pseudo-labels", {"sharpening": 0.7}),
    Variant("rate falls by 0.7 every ten epochs", {"schedule": "steps"}),
    Variant("32 clusters", {"clusters": 32}),
    Variant("64 clusters", {"clusters": 64}),
    Variant("256 clusters", {"clusters": 256}),
    Variant("latent length 32", {"latent": 32}),
    Variant("latent length 64", {"latent": 64}),
    Variant("10 neighbours", {}, constant("NEIGHBOURS", 10)),
    Variant("40 neighbours", {}, constant("NEIGHBOURS", 40)),
    Variant("one-sided neighbours count in full", {}, constant("ONE_SIDED_WEIGHT", 1.0)),
    Variant("no diffusion", {}, constant("DIFFUSION_TIME", 0)),
    Variant("diffusion time 8", {}, constant("DIFFUSION_TIME", 8)),
    Variant("kernel half as wide", {}, constant("LENGTH", 20.0)),
    Variant("kernel twice as wide", {}, constant("LENGTH", 5.0)),
    Variant("balance term", {}, added_term(imbalance, 1.0)),
    Variant("decorrelation term", {}, added_term(correlation, 10.0)),
    Variant("no quantisation term", {"quantisation_weight": 0.0}),
    Variant("quantisation weight 0.1", {"quantisation_weight": 0.1}),
    Variant("quantisation weight 1", {"quantisation_weight": 1.0}),
    Variant("batches of 128", {"batch_size": 128}),
    Variant("batches of 256, rate 0.001", {"batch_size": 256, "learning_rate": 1e-3}),
    Variant("batches of 320, rate 0.00115", {"batch_size": 320, "learning_rate": 1.15e-3}),
    Variant("batches of 384, rate 0.00125", {"batch_size": 384, "learning_rate": 1.25e-3}),
    Variant("batches of 384, rate 0.0015", {"batch_size": 384, "learning_rate": 1.5e-3}),
    Variant("batches of 448, rate 0.0014", {"batch_size": 448, "learning_rate": 1.4e-3}),
    Variant("40 epochs", {"hashing_epochs": 40}),
    Variant("hidden layer of 512", {"hidden": 512}),
    Variant("no dropout", {"dropout": 0.0}),
    Variant("no hidden layer", {"hidden": 0, "dropout": 0.0}),
]


class Protocol:
    """AID's database split in two halves and held-out tiles, and its query split for the result."""

    def __init__(self, aid: Aid) -> None:
        self._aid = aid
        drawn = np.random.default_rng(123).permutation(len(aid.labels))
        self._held_out, kept = drawn[:HELD_OUT], drawn[HELD_OUT:]
        self._halves = [np.sort(half) for half in np.array_split(kept, 2)]

    def run(self, variant: Variant, bits: int, seed: int) -> dict[str, float]:
        with variant.patches():
            one, other = (
                self._held_out_codes(variant, bits, 2 * seed + number, half, primary)
                for number, (half, primary) in enumerate(
                    zip(self._halves, ("coarse", "fine"), strict=True)
                )
            )
            start = time.perf_counter()
            trained = self._train(variant, bits, seed, np.concatenate(self._halves), "coarse")
            seconds = time.perf_counter() - start
        database, queries = self._aid.database("coarse"), self._aid.queries("coarse")
        sides = (pack(outputs_of(trained, side)) for side in (queries, database))
        result = self._aid.measure(CodeRanking(*sides))
        return {
            "criterion": agreement(one, other, NEIGHBOURS),
            **{f"criterion of {k}": agreement(one, other, k) for k in OTHER_NEIGHBOURS},
            "mean AP": result["full"],
            "mean AP at 20": result["at 20"],
            "seconds": seconds,
        }

    def _train(
        self, variant: Variant, bits: int, seed: int, rows: np.ndarray, primary: str
    ) -> MrHashTraining:
        others = [source for source in variant.sources if source != primary]
        sources = [primary, *others][: len(variant.sources)]
        features = [self._aid.database(source)[rows] for source in sources]
        return train_mrhash(features, variant.settings_for(bits, seed))

    def _held_out_codes(
        self, variant: Variant, bits: int, seed: int, rows: np.ndarray, primary: str
    ) -> Words:
        trained = self._train(variant, bits, seed, rows, primary)
        return pack(outputs_of(trained, self._aid.database(primary)[self._held_out]))


def agreement(one: Words, other: Words, neighbours: int) -> float:
    """How well either codes (n, words) of the same tiles find the nearest ones by the other."""
    return (_precision(one, other, neighbours) + _precision(other, one, neighbours)) / 2


def _precision(codes: Words, others: Words, neighbours: int) -> float:
    distances = hamming_distance(others, others).astype(np.float64)
    # Of equal distances any may come first.
    distances += np.random.default_rng(0).random(distances.shape)
    np.fill_diagonal(distances, np.inf)
    relevant = np.zeros(distances.shape, np.bool_)
    nearest = np.argpartition(distances, neighbours, axis=1)[:, :neighbours]
    np.put_along_axis(relevant, nearest, True, axis=1)
    places = np.arange(len(codes))
    precisions = [
        ranking_quality(
            CodeRanking(codes[[place]], codes[places != place]),
            np.ones((1, 1), np.bool_),
            relevant[place, places != place][:, None],
        ).mean_ap
        for place in places
    ]
    return float(np.mean(precisions))


def show(figures: dict[str, dict[str, float]], bits: list[int]) -> str:
    measures = ("criterion", "mean AP", "mean AP at 20")
    head = ["settings", *(f"{measure}, {length} bit" for length in bits for measure in measures)]
    rows = []
    for variant in VARIANTS:
        row = [variant.name]
        for length in bits:
            prefix = f"{variant.name} | {length} | "
            runs = [found for key, found in figures.items() if key.startswith(prefix)]
            for measure in measures:
                values = [run[measure] for run in runs]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                row.append(f"{np.mean(values):.3f}{spread}" if values else "")
        if any(row[1:]):
            rows.append(row)
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", help="names, or parts of names; all without it")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "mrhash_ablation.json")
    options = parser.parse_args()
    folder = options.data / "aid"
    if not (folder / "aid-features.npz").exists():
        print(f"The AID features are not in {folder}: --data names the folder that holds aid/.")
        return
    protocol = Protocol(Aid(folder))
    path: Path = options.output
    path.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    for variant in VARIANTS:
        if options.variants and not any(part in variant.name for part in options.variants):
            continue
        for bits in options.bits:
            for seed in options.seeds:
                key = f"{variant.name} | {bits} | {seed}"
                if key not in figures:
                    figures[key] = protocol.run(variant, bits, seed)
                    path.write_text(json.dumps(figures, indent=1))
                    print(key, {k: round(v, 4) for k, v in figures[key].items()}, flush=True)
    print(show(figures, options.bits))


if __name__ == "__main__":
    main()
