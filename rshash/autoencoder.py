"""The multi-source autoencoder: what one source shows of a place predicts what all sources show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rshash import distributed
from rshash.streaming import TileStream
from rshash.training import TrainingRun, autocast, optimise, run_epochs

HIDDEN_LAYERS = (512, 512, 256, 256)
PRIMARY_WEIGHT = 0.1
"""Of the primary source's own reconstruction while the autoencoder is trained alone."""

LEARNING_RATE = 1e-3
EPOCHS_PER_DECAY = 40


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
            # Of a whole batch: a share of it may hold few of the tiles that have the source.
            sums = distributed.batch_total(torch.stack([errors.sum(), present.sum()]))
            whole = sums[0] / (sums[1] * source.shape[1]).clamp_min(1)
            losses.append(distributed.as_share_mean(whole, len(latent)))
        return primary_weight * losses[0] + sum(losses[1:]) if len(losses) > 1 else losses[0]


def train_autoencoder(
    autoencoder: MultiSourceAutoencoder, stream: TileStream, *, epochs: int, run: TrainingRun
) -> None:
    """Trains an autoencoder in place; the rate is halved every 40 epochs.

    Args:
        autoencoder: The autoencoder to train.
        stream: Batches of the scaled features of each source, float (b, d_s).
        epochs: Passes over the tiles.
        run: The training.
    """
    optimiser = torch.optim.Adam(autoencoder.parameters(), LEARNING_RATE, fused=True)

    def train_epoch(epoch: int) -> float:
        total = torch.zeros((), device=run.device)
        seen = 0
        for rows, sources in stream.epoch(epoch):
            with autocast(run.device):
                latent = autoencoder(sources[0])
                loss = autoencoder.reconstruction_loss(latent, sources, PRIMARY_WEIGHT)
            optimise(loss, optimiser, autoencoder, len(rows))
            total += loss.detach() * len(rows)
            seen += len(rows)
        return float(total) / seen

    run_epochs(
        run,
        "autoencoder",
        epochs,
        autoencoder,
        optimiser,
        train_epoch,
        schedule=torch.optim.lr_scheduler.StepLR(optimiser, EPOCHS_PER_DECAY, 0.5),
        n_tiles=stream.n_tiles,
    )


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
