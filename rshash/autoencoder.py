"""The multi-source autoencoder: what one source shows of a place predicts what all sources show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rshash.progress import Progress, ReportProgress

HIDDEN_LAYERS = (512, 512, 256, 256)
PRIMARY_WEIGHT = 0.1
"""Of the primary source's own reconstruction while the autoencoder is trained alone."""

EPOCHS_PER_DECAY = 40
BATCH_SIZE = 512
SMALLEST_BATCH = 32


class MultiSourceAutoencoder(nn.Module):
    """Encodes the primary source and decodes every source from its latent vector.

    MrHash (doi:10.1109/TGRS.2022.3231215), for any number of sources.
    """

    def __init__(self, dimensions: Sequence[int], latent: int) -> None:
        """Makes the layers for sources of the given feature lengths, the primary one first."""
        super().__init__()
        self.encoder = _layers([dimensions[0], *HIDDEN_LAYERS, latent])
        self.decoders = nn.ModuleList(
            _layers([latent, *reversed(HIDDEN_LAYERS), length]) for length in dimensions
        )

    def forward(self, primary: Tensor) -> Tensor:
        """Latent vectors, float (n, latent), of the primary source's features (n, d)."""
        return self.encoder(primary)

    def reconstruction_loss(
        self, latent: Tensor, sources: Sequence[Tensor], primary_weight: float = 1.0
    ) -> Tensor:
        """Mean squared errors of the decoded sources, summed over the sources.

        Args:
            latent: float (n, latent).
            sources: The features of each source, float (n, d_s), the primary one first; in the
                others a row of NaN is a tile that lacks the source, and takes no part.
            primary_weight: Weight of the primary source's error; one source alone always counts 1.
        """
        losses = []
        for decoder, source in zip(self.decoders, sources, strict=True):
            present = ~source[:, :1].isnan()
            errors = (decoder(latent) - source.nan_to_num()).square() * present
            losses.append(errors.sum() / (present.sum() * source.shape[1]).clamp_min(1))
        return primary_weight * losses[0] + sum(losses[1:]) if len(losses) > 1 else losses[0]


def train_autoencoder(
    autoencoder: MultiSourceAutoencoder,
    sources: Sequence[Tensor],
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    report: ReportProgress,
) -> None:
    """Trains an autoencoder in place; the rate is halved every 40 epochs.

    Args:
        autoencoder: The autoencoder to train.
        sources: Scaled features of each source, float (n, d_s).
        epochs: Passes over the tiles.
        learning_rate: Adam's first rate.
        report: Called after each epoch.
    """
    n_tiles = len(sources[0])
    optimiser = torch.optim.Adam(autoencoder.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, EPOCHS_PER_DECAY, 0.5)
    autoencoder.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in shuffled_batches(n_tiles, BATCH_SIZE):
            rows = [source[batch] for source in sources]
            loss = autoencoder.reconstruction_loss(autoencoder(rows[0]), rows, PRIMARY_WEIGHT)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        schedule.step()
        report(Progress("autoencoder", epoch, epochs, total / n_tiles))


def shuffled_batches(n_tiles: int, largest: int) -> tuple[Tensor, ...]:
    """Row numbers of all tiles in random order, split into batches.

    Small training sets get smaller batches, so that an epoch still has enough steps.
    """
    size = min(largest, max(SMALLEST_BATCH, n_tiles // 16))
    return torch.randperm(n_tiles).split(size)


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
