"""MrHash: codes learned without labels from several sources' views of the same places.

Sun et al., TGRS 2022, doi:10.1109/TGRS.2022.3231215. An autoencoder from the primary source to all
sources gives a latent space; its clusters give every tile a pseudo multi-label; a head that sees
the primary source alone learns codes that keep those labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rshash.autoencoder import (
    MultiSourceAutoencoder,
    shuffled_batches,
    train_autoencoder,
)
from rshash.codes import check_bits
from rshash.errors import TrainingError
from rshash.features import Features
from rshash.head import HashHead
from rshash.kmeans import kmeans
from rshash.progress import Progress, ReportProgress
from rshash.pseudo_labels import sharpened_target, soft_assignment
from rshash.scaling import FeatureScaling

EPOCHS_PER_DECAY = 10


@dataclass(frozen=True)
class MrHashSettings:
    """Settings of MrHash.

    The defaults are for frozen features and a small head; the paper trains for longer.

    Attributes:
        bits: Length of the codes.
        clusters: Clusters of the latent space, which are the pseudo-labels' classes.
        latent: Length of the latent vectors.
        autoencoder_epochs: Passes over the tiles in the autoencoder stage.
        hashing_epochs: Passes over the tiles in the hashing stage.
        batch_size: Most tiles in a step of the hashing stage.
        learning_rate: Adam's first rate in the hashing stage.
        reconstruction_weight: Weight of the reconstruction beside the two divergences, lambda_0.
        hidden: Width of the head's hidden layer.
        dropout: Share of the hidden layer dropped while training.
        seed: Seed of everything random.
        components: Principal components that features are whitened to; without it they are only
            centred. Extractors say what suits them.
    """

    bits: int = 64
    clusters: int = 64
    latent: int = 64
    autoencoder_epochs: int = 60
    hashing_epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    reconstruction_weight: float = 1.0
    hidden: int = 1024
    dropout: float = 0.5
    seed: int = 0
    components: int | None = None


@dataclass(frozen=True)
class MrHashTraining:
    """What training gives.

    Attributes:
        settings: The settings it ran with.
        n_tiles: Tiles trained on.
        head: The trained head.
        scaling: The scaling of the primary source's features.
        probabilities: Pseudo multi-labels of the training tiles, float32 (n, clusters).
        losses: Mean loss of each epoch by stage.
    """

    settings: MrHashSettings
    n_tiles: int
    head: HashHead
    scaling: FeatureScaling
    probabilities: NDArray[np.float32]
    losses: dict[str, list[float]]


def check_training_set(n_tiles: int, settings: MrHashSettings) -> None:
    """Refuses a training set that is too small for the clusters, and settings that cannot work.

    Raises:
        CodeError: The number of bits is not allowed.
        TrainingError: There are fewer than two tiles for each cluster, or fewer than two clusters.
    """
    check_bits(settings.bits)
    if settings.clusters < 2:
        raise TrainingError(f"At least 2 clusters are needed, but found {settings.clusters}.")
    if n_tiles < 2 * settings.clusters:
        fewer = f", or train with at most {n_tiles // 2} clusters" if n_tiles >= 4 else ""
        raise TrainingError(
            f"{n_tiles} tiles are too few for {settings.clusters} clusters: "
            f"ingest at least {2 * settings.clusters} tiles{fewer}."
        )


def train_mrhash(
    sources: Sequence[Features],
    settings: MrHashSettings | None = None,
    progress: ReportProgress | None = None,
) -> MrHashTraining:
    """Trains MrHash on the features of the same tiles from one or more sources.

    The same seed and data give the same result on the CPU.

    Args:
        sources: float32 (n, d_s) for each source, unscaled. The first is the primary one, from
            which codes are made, and must be complete; in the others a row of NaN is a tile that
            lacks the source.
        settings: The settings; the defaults where it is None.
        progress: Called after every epoch.

    Returns:
        The trained head, its scaling, the pseudo multi-labels and the losses.

    Raises:
        CodeError: The number of bits is not allowed.
        TrainingError: The training set is too small, incomplete, or diverged.
    """
    settings = settings or MrHashSettings()
    scalings, scaled = _prepare(sources, settings)
    losses: dict[str, list[float]] = {}

    def report(step: Progress) -> None:
        if not np.isfinite(step.loss):
            raise TrainingError(
                f"The loss of the {step.stage} stage became {step.loss} in epoch {step.epoch}: "
                f"lower the learning rate (it is {settings.learning_rate})."
            )
        losses.setdefault(step.stage, []).append(step.loss)
        if progress is not None:
            progress(step)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        tensors = [torch.as_tensor(source, device=device) for source in scaled]
        dimensions = [source.shape[1] for source in scaled]
        autoencoder = MultiSourceAutoencoder(dimensions, settings.latent).to(device)
        train_autoencoder(autoencoder, tensors, epochs=settings.autoencoder_epochs, report=report)
        hashing = _Hashing(autoencoder, dimensions[0], settings, tensors[0]).to(device)
        _train_hashing(hashing, tensors, settings, report)
    return MrHashTraining(
        settings=settings,
        n_tiles=len(scaled[0]),
        head=hashing.head.cpu().eval(),
        scaling=scalings[0],
        probabilities=hashing.probabilities(tensors[0]).cpu().numpy(),
        losses=losses,
    )


def _prepare(
    sources: Sequence[Features], settings: MrHashSettings
) -> tuple[list[FeatureScaling], list[Features]]:
    if not sources:
        raise TrainingError("MrHash needs the features of at least one source, but found none.")
    n_tiles = len(sources[0])
    check_training_set(n_tiles, settings)
    if any(len(source) != n_tiles for source in sources):
        raise TrainingError(
            "All sources must describe the same tiles, "
            f"but they have {[len(source) for source in sources]} rows."
        )
    missing = int(np.isnan(sources[0]).any(axis=1).sum())
    if missing:
        raise TrainingError(
            f"{missing} of {n_tiles} tiles lack the primary source: leave them out of training."
        )
    scalings = [FeatureScaling.fit(source, settings.components) for source in sources]
    return scalings, [
        scaling.apply(source) for scaling, source in zip(scalings, sources, strict=True)
    ]


class _Hashing(nn.Module):
    """Everything that the hashing stage trains."""

    def __init__(
        self,
        autoencoder: MultiSourceAutoencoder,
        dimensions: int,
        settings: MrHashSettings,
        primary: Tensor,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.head = HashHead(dimensions, settings.bits, settings.hidden, settings.dropout)
        self.to_latent = nn.Linear(settings.bits, settings.latent, bias=False)
        with torch.no_grad():
            centres = kmeans(autoencoder(primary), settings.clusters)
        self.centres = nn.Parameter(centres)

    @torch.no_grad()
    def probabilities(self, primary: Tensor) -> Tensor:
        """The sharpened pseudo multi-labels of all tiles, float (n, clusters)."""
        device = self.centres.device
        latent = torch.cat([self.autoencoder(rows.to(device)) for rows in primary.split(8192)])
        return sharpened_target(soft_assignment(latent, self.centres))

    def loss(self, sources: Sequence[Tensor], target: Tensor, weight: float) -> Tensor:
        latent = self.autoencoder(sources[0])
        hashed = self.to_latent(self.head(sources[0]))
        divergence = sum(
            # Averaged over the batch alone: averaging over clusters too would drown the labels.
            nn.functional.kl_div(soft_assignment(z, self.centres), target, reduction="batchmean")
            for z in (hashed, latent)
        )
        return divergence + weight * self.autoencoder.reconstruction_loss(latent, sources)


def _train_hashing(
    hashing: _Hashing,
    sources: Sequence[Tensor],
    settings: MrHashSettings,
    report: ReportProgress,
) -> None:
    epochs, n_tiles = settings.hashing_epochs, len(sources[0])
    optimiser = torch.optim.Adam(hashing.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, EPOCHS_PER_DECAY, 0.7)
    hashing.train()
    for epoch in range(1, epochs + 1):
        target = hashing.probabilities(sources[0])
        total = 0.0
        for batch in shuffled_batches(n_tiles, settings.batch_size):
            rows = [source[batch] for source in sources]
            loss = hashing.loss(rows, target[batch], settings.reconstruction_weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        schedule.step()
        report(Progress("hashing", epoch, epochs, total / n_tiles))
