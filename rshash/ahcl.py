"""AHCL: codes learned from labels, by a network for queries and directly for a database.

Song et al., TGRS 2022, doi:10.1109/TGRS.2022.3143571. In turn, a head that makes the codes of
queries learns from a sample of the database's tiles, and the code of every tile of the database is
optimised as binary variables, given what the head makes of the sample.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from rshash.checkpoints import Checkpoint, fingerprint
from rshash.codes import Words, check_bits, pack
from rshash.errors import LabelError
from rshash.hasher import FeatureHasher
from rshash.head import HashHead
from rshash.labels import TileLabels
from rshash.progress import ReportProgress
from rshash.scaling import FeatureScaling, check_sources
from rshash.settings import above, at_least, checked, one_of, optional, random_seed, share, whole
from rshash.similarity import LabelSets, SimilarityLoss, sum_codes, update_codes
from rshash.streaming import Rows, TileStream
from rshash.training import TrainingRun, autocast, optimise, own_random_state, run_epochs

EPOCHS = 2
"""Passes over the sampled tiles in every iteration."""

_ALLOWED = {
    "bits": whole(8),
    "sampled": whole(2),
    "iterations": whole(1),
    "batch_size": whole(2),
    "learning_rate": above(0),
    "schedule": one_of("cosine", "steps"),
    "weight_decay": at_least(0),
    "quantisation_weight": at_least(0),
    "classification_weight": at_least(0),
    "hidden": whole(0),
    "initial_scale": above(0),
    "dropout": share(),
    "noise": at_least(0),
    "seed": random_seed(),
    "components": optional(whole(1)),
}


@dataclass(frozen=True)
class AhclSettings:
    """Settings of AHCL.

    Attributes:
        bits: Length of the codes.
        sampled: Tiles drawn from the database in every iteration; all where there are fewer.
        iterations: Times that a sample is drawn and all codes are updated.
        batch_size: Most tiles in a step.
        learning_rate: Adam's first rate.
        schedule: How the rate falls: "cosine", or in "steps" to a tenth after every 10 iterations.
        weight_decay: Share of the weights that a step takes away, as a multiple of the rate.
        quantisation_weight: Weight of the outputs' distance from the learned codes: lambda / n for
            a database of n tiles. The larger the database, the more the codes of the last sample
            follow their outputs.
        classification_weight: Weight of the classes' cross-entropy: gamma / bits^2, as the
            similarity term grows with bits^2.
        hidden: Width of the head's hidden layer; 0 for none.
        initial_scale: Scale of the head's first weights against torch's: large random ones stay in
            the head for good and blur it.
        dropout: Share of the hidden layer dropped while training.
        noise: Standard deviation of what is added to features while training; theirs is 1.
        seed: Seed of everything random.
        components: Principal components that features are whitened to; without it they are only
            centred. Extractors say what suits them.
    """

    bits: int = 64
    sampled: int = 2000
    iterations: int = 160
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "steps"] = "cosine"
    weight_decay: float = 1.0
    quantisation_weight: float = 2.5
    classification_weight: float = 0.005
    hidden: int = 1024
    initial_scale: float = 0.1
    dropout: float = 0.0
    noise: float = 0.6
    seed: int = 0
    components: int | None = None

    @classmethod
    def paper(
        cls, bits: int = 64, *, n_tiles: int, seed: int = 0, components: int | None = None
    ) -> AhclSettings:
        """The published weights (lambda 200, gamma 20) and schedule, for a database of n tiles.

        The head is this package's, in place of the paper's convolutional network.
        """
        return cls(
            bits=bits,
            iterations=30,
            batch_size=64,
            schedule="steps",
            weight_decay=0.0,
            quantisation_weight=200 / n_tiles,
            classification_weight=20 / bits**2,
            initial_scale=1.0,
            dropout=0.5,
            noise=0.0,
            seed=seed,
            components=components,
        )


@dataclass(frozen=True)
class AhclTraining(FeatureHasher):
    """What training gives.

    Attributes:
        settings: The settings it ran with.
        n_tiles: Tiles trained on: the labelled database.
        head: The trained head, which makes the codes of all other tiles.
        scaling: The scaling of the features.
        codes: Learned codes of the database's tiles, uint64 (n, words).
        classes: Names of the classes.
        losses: Mean loss of each iteration by stage.
        method: Name of the method.
    """

    settings: AhclSettings
    n_tiles: int
    head: HashHead
    scaling: FeatureScaling
    codes: Words
    classes: tuple[str, ...]
    losses: dict[str, list[float]]
    method: str = "ahcl"


def checked_settings(settings: AhclSettings) -> AhclSettings:
    """The settings if they can work, with Python's own numbers.

    Raises:
        CodeError: The number of bits is not allowed.
        TrainingError: A setting is out of range.
    """
    check_bits(settings.bits)
    return checked(settings, _ALLOWED)


def check_labelled_tiles(n_tiles: int, labels: TileLabels, settings: AhclSettings) -> None:
    """Refuses labels that are not of the features' tiles or tell nothing apart, and bad settings.

    Raises:
        CodeError: The number of bits is not allowed.
        TrainingError: A setting is out of range.
        LabelError: There are not as many labelled tiles as features, or fewer than two classes.
    """
    checked_settings(settings)
    if len(labels) != n_tiles:
        raise LabelError(
            f"Every tile needs its labels in the same row, but there are features of {n_tiles} "
            f"tiles and labels of {len(labels)}: bring them together with rshash.labels.align."
        )
    used = int(labels.values.any(axis=0).sum())
    if used < 2:
        raise LabelError(
            f"The labels are of {used} class: AHCL tells classes apart and needs at least two."
        )


def train_ahcl(
    features: Rows,
    labels: TileLabels,
    settings: AhclSettings | None = None,
    *,
    progress: ReportProgress | None = None,
    checkpoint: Path | None = None,
) -> AhclTraining:
    """Trains AHCL on a labelled database.

    The same seed and data give the same result on the CPU, also when training was ended and
    resumed from its checkpoint.

    Args:
        features: float (n, d), unscaled, in memory or on disk.
        labels: The labels of the same n tiles.
        settings: The settings; the defaults where it is None.
        progress: Called after every iteration.
        checkpoint: Folder that keeps the training's state after every iteration, and from which an
            ended training goes on.

    Returns:
        The trained head, its scaling, the learned codes and the losses.

    Raises:
        CodeError: The number of bits is not allowed.
        FeatureError: Features are infinite, or all the same.
        LabelError: The labels do not fit the features, or tell nothing apart.
        TrainingError: A tile lacks features, a setting is out of range, or training diverged.
        CheckpointError: The checkpoint is damaged, or belongs to another training.
    """
    settings = checked_settings(settings or AhclSettings())
    check_sources([features])
    check_labelled_tiles(features.shape[0], labels, settings)
    scaling = FeatureScaling.fit(features, settings.components)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, _identity(features, labels, settings))
    run = TrainingRun(settings.seed, progress, saved)
    with own_random_state(run.device):
        torch.manual_seed(settings.seed)
        iterations = _Iterations(run, settings, features, scaling, labels)
    learning = iterations.learning
    run_epochs(
        run,
        "ahcl",
        settings.iterations,
        learning,
        iterations.optimiser,
        iterations.iterate,
        schedule=iterations.schedule,
        n_tiles=EPOCHS * iterations.sampled,
    )
    return AhclTraining(
        settings=settings,
        n_tiles=len(labels),
        head=learning.head.cpu(),
        scaling=scaling,
        codes=learning.words(),
        classes=labels.classes,
        losses=run.losses,
    )


class _Learning(nn.Module):
    """Everything that is learned: the head, its classifier and the codes of the database."""

    codes: Tensor

    def __init__(
        self, dimensions: int, classes: int, label_sets: LabelSets, settings: AhclSettings
    ) -> None:
        super().__init__()
        self.head = HashHead(dimensions, settings.bits, settings.hidden, settings.dropout)
        self.classifier = nn.Linear(settings.bits, classes)
        with torch.no_grad():
            next(self.head.parameters()).mul_(settings.initial_scale)
        # Tiles of one label set begin with one code: most then share their updates for ever.
        by_set = pack(torch.randn(len(label_sets.sets), settings.bits).numpy())
        words = by_set[label_sets.of_tile]
        self.register_buffer("codes", torch.from_numpy(words.view(np.int64)))

    def words(self) -> Words:
        """The learned codes, uint64 (n, words); on the CPU the buffer itself."""
        return self.codes.cpu().numpy().view(np.uint64)


class _Iterations:
    """The iterations of a training: each draws tiles, trains the head, and updates all codes."""

    def __init__(
        self,
        run: TrainingRun,
        settings: AhclSettings,
        features: Rows,
        scaling: FeatureScaling,
        labels: TileLabels,
    ) -> None:
        self._run, self._settings = run, settings
        self._features, self._scaling, self._labels = features, scaling, labels
        self._label_sets = LabelSets.of(labels.values)
        self._is_single = labels.is_single
        self.sampled = min(settings.sampled, len(labels))
        self.learning = _Learning(
            scaling.dimensions, len(labels.classes), self._label_sets, settings
        ).to(run.device)
        self.optimiser = torch.optim.AdamW(
            self.learning.parameters(),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.schedule: LRScheduler = StepLR(self.optimiser, 10, 0.1)
        if settings.schedule == "cosine":
            self.schedule = CosineAnnealingLR(self.optimiser, settings.iterations)

    def iterate(self, iteration: int) -> float:
        """Runs the iteration of that number, from 1, and returns its mean loss."""
        settings, learning = self._settings, self.learning
        random = np.random.default_rng([settings.seed, iteration])
        sampled = np.sort(random.choice(len(self._labels), self.sampled, replace=False))
        # One by one: a sample is a small part of a database that may be on disk.
        rows = np.concatenate([self._features[row : row + 1] for row in sampled])
        stream = TileStream(
            [rows, self._labels.values[sampled]],
            settings.batch_size,
            seed=settings.seed,
            device=self._run.device,
            transforms=[self._scaling.apply, None],
        )
        words, weight = learning.words(), settings.quantisation_weight * len(self._labels)
        loss = self._train(stream, sampled, words, weight, EPOCHS * iteration)
        learning.eval()
        with torch.no_grad():
            outputs = torch.cat([learning.head(part) for part in stream.in_order()])
        update_codes(words, settings.bits, self._label_sets, sampled, outputs.cpu().numpy(), weight)
        learning.codes.copy_(torch.from_numpy(words.view(np.int64)))
        return loss

    def _train(
        self,
        stream: TileStream,
        sampled: NDArray[np.int64],
        words: Words,
        weight: float,
        first_epoch: int,
    ) -> float:
        """Trains the head on the sampled tiles and returns the mean loss."""
        settings, learning, label_sets = self._settings, self.learning, self._label_sets
        sums = sum_codes(words, settings.bits, label_sets)
        similarity = SimilarityLoss(
            words, settings.bits, label_sets, sums, sampled, weight, self._run.device
        )
        classification = settings.classification_weight * settings.bits**2
        losses, sizes = [], []
        for epoch in range(first_epoch, first_epoch + EPOCHS):
            for rows, (features, classes) in stream.epoch(epoch):
                features = features + settings.noise * torch.randn_like(features)
                with autocast(self._run.device):
                    outputs = learning.head(features)
                    logits = learning.classifier(outputs)
                logits = logits.float()
                loss = similarity(outputs, rows) + classification * (
                    nn.functional.cross_entropy(logits, classes)
                    if self._is_single
                    else nn.functional.binary_cross_entropy_with_logits(logits, classes)
                )
                optimise(loss, self.optimiser, learning, len(rows))
                losses.append(loss.detach())
                sizes.append(len(rows))
        return float(np.average(torch.stack(losses).cpu().numpy(), weights=sizes))


def _identity(features: Rows, labels: TileLabels, settings: AhclSettings) -> dict[str, Any]:
    return {
        "method": "ahcl",
        "settings": asdict(settings),
        "features": fingerprint(features),
        "classes": list(labels.classes),
        "labels": fingerprint(labels.values),
    }
