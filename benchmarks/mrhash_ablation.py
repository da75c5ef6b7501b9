"""Which settings of MrHash win, and by how much: the ablation of docs/mrhash.md.

Settings are chosen by the criterion alone, which takes no labels: the codes (made from the coarse
source) of 900 held-out database tiles of AID should find the 20 tiles that are nearest to theirs
in the features of both sources; its figure is a mean average precision with ties in expectation.
The mean average precision of the query tiles, by their labels, is printed beside it as the result;
it chooses nothing.

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
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from quality_aid import Aid, outputs_of
from torch import Tensor

from rshash import hashing, neighbours
from rshash.codes import pack
from rshash.evaluation import ranking_quality
from rshash.mrhash import train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.rankings import CodeRanking
from rshash.report_text import table
from rshash.scaling import FeatureScaling

ROOT = Path(__file__).parents[1]
HELD_OUT = 900
NEIGHBOURS = 20


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


def quantisation(outputs: Tensor) -> Tensor:
    return (outputs.abs() - 1).square().mean()


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
    Variant("quantisation term", {}, added_term(quantisation, 0.1)),
    Variant("batches of 128", {"batch_size": 128}),
    Variant("40 epochs", {"hashing_epochs": 40}),
    Variant("no dropout", {"dropout": 0.0}),
    Variant("no hidden layer", {"hidden": 0, "dropout": 0.0}),
]


class Protocol:
    """AID's database split with held-out tiles, and its query split for the result."""

    def __init__(self, aid: Aid) -> None:
        self._aid = aid
        drawn = np.random.default_rng(123).permutation(len(aid.labels))
        self._held_out, self._kept = np.sort(drawn[:HELD_OUT]), np.sort(drawn[HELD_OUT:])

    @cached_property
    def _neighbours(self) -> np.ndarray:
        """Which kept tiles (rows) are the nearest ones of each held-out tile (columns)."""
        joined = []
        for source in ("coarse", "fine"):
            features = self._aid.database(source)
            joined.append(FeatureScaling.fit(features[self._kept]).apply(features))
        directions = np.hstack(joined)
        products = directions[self._held_out] @ directions[self._kept].T
        nearest = np.argpartition(-products, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        relevant = np.zeros((len(self._kept), HELD_OUT), np.bool_)
        relevant[nearest, np.arange(HELD_OUT)[:, None]] = True
        return relevant

    def run(self, variant: Variant, bits: int, seed: int) -> dict[str, float]:
        features = [self._aid.database(source)[self._kept] for source in variant.sources]
        start = time.perf_counter()
        with variant.patches():
            trained = train_mrhash(features, variant.settings_for(bits, seed))
        seconds = time.perf_counter() - start
        database = pack(outputs_of(trained, self._aid.database("coarse")))
        queries = pack(outputs_of(trained, self._aid.queries("coarse")))
        judged = ranking_quality(
            CodeRanking(database[self._held_out], database[self._kept]),
            np.eye(HELD_OUT, dtype=np.bool_),
            self._neighbours,
        )
        result = self._aid.measure(CodeRanking(queries, database))
        return {
            "criterion": judged.mean_ap,
            "mean AP": result["full"],
            "mean AP at 20": result["at 20"],
            "seconds": seconds,
        }


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
