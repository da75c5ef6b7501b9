"""The hashing stage of MrHash: a head that sees the primary source alone learns the codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from rshash import distributed
from rshash.autoencoder import MultiSourceAutoencoder
from rshash.head import HashHead
from rshash.mrhash_settings import MrHashSettings
from rshash.pixels import PixelBackbone
from rshash.pseudo_labels import log_student_kernel, sharpened_target, soft_assignment
from rshash.streaming import TileStream
from rshash.training import TrainingRun, autocast, optimise, run_epochs

if TYPE_CHECKING:
    from rshash.probe import Probe

EPOCHS_PER_DECAY = 10
DECAY = 0.7


class Hashing(nn.Module):
    """Everything that the hashing stage trains.

    Without an autoencoder the latent vectors are given and stay as they are; with one it keeps
    learning, and the latent vectors and the pseudo-labels with it.
    """

    def __init__(
        self,
        settings: MrHashSettings,
        head: HashHead,
        centres: Tensor,
        autoencoder: MultiSourceAutoencoder | None = None,
        backbone: PixelBackbone | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.autoencoder = autoencoder
        self.backbone = backbone
        self.to_latent = nn.Linear(head.sizes["bits"], centres.shape[1], bias=False)
        self.centres = nn.Parameter(centres.clone(), requires_grad=autoencoder is not None)
        self._reconstruction_weight = settings.reconstruction_weight
        self._similarity_weight = settings.similarity_weight
        self._quantisation_weight = settings.quantisation_weight
        self._sharpening = settings.sharpening

    def outputs(self, arrays: Sequence[Tensor]) -> Tensor:
        """Network outputs u, float (n, bits), of a batch's arrays as the stream gives them."""
        return self.head(arrays[0] if self.backbone is None else self.backbone(arrays[-1]))

    def loss(self, arrays: Sequence[Tensor], target: Tensor, directions: Tensor | None) -> Tensor:
        """Loss of a batch.

        Args:
            arrays: The primary source's features, float (b, d), or all sources' where there is an
                autoencoder; where there is a backbone its tiles' pixels come last.
            target: Pseudo multi-labels p, float (b, K).
            directions: Latent vectors of length one where they are given, float (b, latent).
        """
        with autocast(target.device):
            outputs = self.outputs(arrays)
            if self.autoencoder is not None:
                sources = arrays[: len(self.autoencoder.decoders)]
                latent = self.autoencoder(sources[0])
                reconstruction = self.autoencoder.reconstruction_loss(latent, sources)
        # Distances to centres are small differences of large numbers: not in half precision.
        outputs = outputs.float()
        loss = _Divergence.apply(self.to_latent(outputs), self.centres, target)
        if self.autoencoder is not None:
            latent = latent.float()
            loss = loss + _Divergence.apply(latent, self.centres, target)
            loss = loss + self._reconstruction_weight * reconstruction
            directions = nn.functional.normalize(latent.detach(), dim=1)
        if self._similarity_weight and directions is not None:
            loss = loss + self._similarity_weight * distributed.as_share_mean(
                _Dissimilarity.apply(outputs, directions), len(outputs)
            )
        if self._quantisation_weight:
            loss = loss + self._quantisation_weight * (outputs.abs() - 1).square().mean()
        return loss

    @torch.no_grad()
    def targets(self, latent: Tensor | None, stream: TileStream) -> Tensor:
        """Pseudo multi-labels of all tiles, float (n, K)."""
        if self.autoencoder is not None:
            latent = torch.cat([self.autoencoder(rows) for rows in stream.in_order()])
        assert latent is not None
        return sharpened_target(soft_assignment(latent, self.centres), self._sharpening)


def train_hashing(
    run: TrainingRun,
    settings: MrHashSettings,
    hashing: Hashing,
    stream: TileStream,
    latent: Tensor | None,
    probe: Probe | None = None,
) -> Tensor:
    """Trains the hashing stage in place.

    Args:
        run: The training.
        settings: Its settings.
        hashing: What is trained.
        stream: Batches of arrays as `Hashing.loss` takes them.
        latent: Latent vectors of all tiles, float (n, latent), where they are given.
        probe: Tiles held out to judge the codes by; with it training stops early.

    Returns:
        Pseudo multi-labels of all tiles at the end, float (n, K).
    """
    optimiser = _optimiser(settings, hashing)
    constant = None if hashing.autoencoder is not None else hashing.targets(latent, stream)
    directions = None if latent is None else nn.functional.normalize(latent, dim=1)

    def train_epoch(epoch: int) -> float:
        target = constant if constant is not None else hashing.targets(latent, stream)
        total = torch.zeros((), device=run.device)
        seen = 0
        for rows, arrays in stream.epoch(epoch):
            given = None if directions is None else directions.index_select(0, rows)
            loss = hashing.loss(arrays, target.index_select(0, rows), given)
            optimise(loss, optimiser, hashing, len(rows))
            total += loss.detach() * len(rows)
            seen += len(rows)
        return float(total) / seen

    run_epochs(
        run,
        "hashing",
        settings.hashing_epochs,
        hashing,
        optimiser,
        train_epoch,
        schedule=_schedule(settings, optimiser),
        criterion=None if probe is None else lambda: probe.judge(hashing),
        patience=settings.patience or settings.hashing_epochs,
        n_tiles=stream.n_tiles - (0 if probe is None else len(probe.held_out)),
    )
    return hashing.targets(latent, stream) if constant is None else constant


def _optimiser(settings: MrHashSettings, hashing: Hashing) -> torch.optim.Optimizer:
    backbone = [] if hashing.backbone is None else list(hashing.backbone.parameters())
    tuned = {id(parameter) for parameter in backbone}
    others = [p for p in hashing.parameters() if id(p) not in tuned and p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": others}]
    if backbone:
        rate = settings.learning_rate * settings.backbone_rate
        # The fused step wants weights and moments in one memory layout: of a channels-last network
        # those read from a checkpoint are not.
        groups.append({"params": backbone, "lr": rate, "fused": False})
    return torch.optim.Adam(groups, settings.learning_rate, fused=True)


def _schedule(settings: MrHashSettings, optimiser: torch.optim.Optimizer) -> LRScheduler:
    if settings.schedule == "steps":
        return torch.optim.lr_scheduler.StepLR(optimiser, EPOCHS_PER_DECAY, DECAY)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.hashing_epochs)


class _Divergence(torch.autograd.Function):
    """KL divergence of assignments from pseudo-labels, with its gradient in closed form.

    Averaged over the batch alone: averaging over clusters too would drown the labels. Xie et al.,
    ICML 2016, equations 4 and 5.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, centres: Tensor, target: Tensor) -> Tensor:
        log_kernel = log_student_kernel(latent, centres)
        assignment = torch.log_softmax(log_kernel, dim=1)
        # By the squared distances, whose kernel is 1 / (1 + distance).
        gradient = (target - assignment.exp()) * log_kernel.exp() / len(latent)
        ctx.save_for_backward(latent, centres, gradient)
        return nn.functional.kl_div(assignment, target, reduction="batchmean")

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        latent, centres, gradient = ctx.saved_tensors
        gradient = 2 * upstream * gradient
        by_latent = latent * gradient.sum(1, keepdim=True) - gradient @ centres
        by_centres = None
        if ctx.needs_input_grad[1]:
            by_centres = centres * gradient.sum(0)[:, None] - gradient.T @ latent
        return by_latent, by_centres, None


class _Dissimilarity(torch.autograd.Function):
    """Mean squared difference of the outputs' inner products, over bits, to those of directions.

    Over all pairs of a batch, in whichever processes its tiles are: |U U^T / c - D D^T|^2 from the
    small matrices U^T U, U^T D and D^T D, which are sums over tiles.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, directions: Tensor) -> Tensor:
        bits = outputs.shape[1]
        both = torch.cat([outputs / bits**0.5, directions], dim=1)
        products = distributed.batch_total(both.T @ both)
        signed = products.clone()
        signed[:bits, bits:] *= -1
        signed[bits:, :bits] *= -1
        pairs = distributed.batch_size(len(outputs), outputs.device) ** 2
        ctx.save_for_backward(both @ signed[:, :bits] * (4 / (pairs * bits**0.5)))
        return (products * signed).sum() / pairs

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None
