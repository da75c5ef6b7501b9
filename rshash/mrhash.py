"""MrHash: codes learned without labels from several sources' views of the same places.

Sun et al., TGRS 2022, doi:10.1109/TGRS.2022.3231215. All sources' views of the training tiles give
a latent space; its clusters give every tile a pseudo multi-label; a head that sees the primary
source alone learns codes that keep those labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rshash import distributed
from rshash.autoencoder import MultiSourceAutoencoder, train_autoencoder
from rshash.checkpoints import Checkpoint, fingerprint
from rshash.errors import FeatureError, TrainingError
from rshash.features import Extractor
from rshash.hasher import FeatureHasher
from rshash.hashing import Hashing, train_hashing
from rshash.head import HashHead
from rshash.kmeans import kmeans
from rshash.mrhash_settings import SMALLEST_BATCH, MrHashSettings, resolved_settings
from rshash.neighbours import (
    Directions,
    extended_embedding,
    joined_directions,
    neighbour_embedding,
    reach,
)
from rshash.pixels import PixelBackbone, TilePixels
from rshash.probe import Probe
from rshash.progress import Progress, ReportProgress
from rshash.scaling import FeatureScaling, check_sources
from rshash.sources import ScaledSources, take_rows
from rshash.streaming import Rows, TileStream, Transform
from rshash.training import TrainingRun, multiplied_precision, own_random_state

REFERENCE_TILES = 1 << 14
"""Most tiles whose graph of neighbours is made, and which are clustered; others follow them."""

AUTOENCODER_BATCH = 512


@dataclass(frozen=True)
class MrHashTraining(FeatureHasher):
    """What training gives.

    Attributes:
        settings: The settings it ran with.
        n_tiles: Tiles trained on.
        head: The trained head.
        scaling: The scaling of the primary source's features.
        probabilities: Pseudo multi-labels of the training tiles, float32 (n, clusters).
        losses: Mean loss of each epoch by stage.
        extractor: The primary source's extractor where its weights were tuned from pixels.
        method: Name of the method.
    """

    settings: MrHashSettings
    n_tiles: int
    head: HashHead
    scaling: FeatureScaling
    probabilities: NDArray[np.float32]
    losses: dict[str, list[float]]
    extractor: Extractor | None = None
    method: str = "mrhash"


def train_mrhash(
    sources: Sequence[Rows],
    settings: MrHashSettings | None = None,
    *,
    pixels: TilePixels | None = None,
    progress: ReportProgress | None = None,
    checkpoint: Path | None = None,
) -> MrHashTraining:
    """Trains MrHash on the features of the same tiles from one or more sources.

    The same seed and data give the same result on the CPU, also when training was ended and
    resumed from its checkpoint.

    Args:
        sources: float (n, d_s) for each source, unscaled, in memory or on disk. The first is the
            primary one, from which codes are made, and must be complete; in the others a row of
            NaN is a tile that lacks the source.
        settings: The settings; the defaults where it is None.
        pixels: The primary source's tiles. With them the hashing stage sees pixels in place of
            cached features, and the extractor is fine-tuned.
        progress: Called after every epoch.
        checkpoint: Folder that keeps the training's state after every epoch, and from which an
            ended training goes on.

    Returns:
        The trained head, its scaling, the pseudo multi-labels and the losses.

    Raises:
        CodeError: The number of bits is not allowed.
        FeatureError: Features are infinite, or all the same.
        TrainingError: The training set is too small, incomplete, or diverged.
        CheckpointError: The checkpoint is damaged, or belongs to another training.
    """
    check_sources(sources)
    n_tiles = sources[0].shape[0]
    settings = resolved_settings(n_tiles, settings or MrHashSettings())
    components = settings.components_of(len(sources))
    if pixels is not None:
        pixels.check(sources[0])
    scaled = ScaledSources(sources, _fit_scalings(sources, components))
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, _identity(sources, settings, pixels))
    run = TrainingRun(settings.seed, progress, saved)
    with own_random_state(run.device):
        torch.manual_seed(settings.seed)
        return _Stages(run, settings, scaled).train(pixels)


class _Stages:
    def __init__(self, run: TrainingRun, settings: MrHashSettings, sources: ScaledSources) -> None:
        self._run, self._settings, self._sources = run, settings, sources
        assert settings.clusters is not None
        self._clusters = settings.clusters
        drawn = np.random.default_rng(settings.seed).permutation(sources.n_tiles)
        self._references = np.sort(drawn[:REFERENCE_TILES])

    def train(self, pixels: TilePixels | None) -> MrHashTraining:
        settings, sources, device = self._settings, self._sources, self._run.device
        self._check_distinct()
        head = HashHead(sources.dimensions[0], settings.bits, settings.hidden, settings.dropout)
        backbone = None
        if pixels is not None:
            frozen = settings.backbone_rate == 0
            backbone = PixelBackbone(pixels, sources.scalings[0], frozen=frozen)
        autoencoder = latent = None
        if settings.latent_space == "autoencoder":
            autoencoder = self._autoencoder()
        else:
            latent = self._neighbour_latent()
        centres = self._centres(autoencoder, latent)
        hashing = Hashing(settings, head, centres, autoencoder, backbone).to(device)
        probe = None if settings.patience is None else Probe(sources, pixels, settings.seed, device)
        held_out = None if probe is None else probe.held_out
        assert settings.batch_size is not None  # resolved_settings sees to that
        stream = self._stream(settings.batch_size, autoencoder, pixels, held_out)
        probabilities = train_hashing(self._run, settings, hashing, stream, latent, probe)
        extractor = None
        if pixels is not None and backbone is not None and settings.backbone_rate:
            extractor = pixels.extractor.with_weights(backbone.network.cpu())
        return MrHashTraining(
            settings=settings,
            n_tiles=sources.n_tiles,
            head=hashing.head.cpu().eval(),
            scaling=sources.scalings[0],
            probabilities=probabilities.cpu().numpy(),
            losses=self._run.losses,
            extractor=extractor,
        )

    def _check_distinct(self) -> None:
        primary = take_rows(self._sources.arrays[0], self._references)
        distinct, clusters = len(np.unique(primary, axis=0)), self._clusters
        if distinct < clusters:
            raise TrainingError(
                f"{len(primary)} tiles show only {distinct} different features, too few to fill "
                f"{clusters} clusters: train with at most {distinct} clusters, or on more varied "
                "tiles."
            )

    def _autoencoder(self) -> MultiSourceAutoencoder:
        autoencoder = MultiSourceAutoencoder(self._sources.dimensions, self._settings.latent)
        autoencoder.to(self._run.device)
        batch_size = min(AUTOENCODER_BATCH, max(SMALLEST_BATCH, self._sources.n_tiles // 16))
        stream = self._stream(batch_size, autoencoder)
        train_autoencoder(
            autoencoder, stream, epochs=self._settings.autoencoder_epochs, run=self._run
        )
        return autoencoder

    def _neighbour_latent(self) -> Tensor:
        """Latent vectors of all tiles, float (n, latent)."""
        device = self._run.device

        def compute() -> Tensor:
            references = joined_directions(self._sources.take(self._references, device))
            latent = neighbour_embedding(references, self._settings.latent)
            if len(latent) == self._sources.n_tiles:
                return latent
            return self._extended(references, latent)

        return self._kept("latent", compute)

    def _extended(self, references: Directions, latent: Tensor) -> Tensor:
        run, count = self._run, self._sources.block_count
        reached = reach(references)
        found = []
        for number, block in enumerate(self._sources.blocks(run.device), 1):
            started = time.perf_counter()
            further = joined_directions(block)
            found.append(extended_embedding(further, references, reached, latent))
            if run.progress is not None and distributed.is_main():
                rate = len(found[-1]) / (time.perf_counter() - started)
                run.progress(Progress("neighbours", number, count, tiles_per_second=rate))
        joined = torch.cat(found)
        joined[torch.from_numpy(self._references).to(joined.device)] = latent
        return joined

    def _centres(self, autoencoder: MultiSourceAutoencoder | None, latent: Tensor | None) -> Tensor:
        """Centres of the clusters of the latent space, float (K, latent)."""

        def compute() -> Tensor:
            if latent is not None:
                points = latent[torch.from_numpy(self._references).to(latent.device)]
            else:
                assert autoencoder is not None
                primary = self._sources.take(self._references, self._run.device)[0]
                with torch.no_grad():
                    points = autoencoder(primary)
            return kmeans(points, self._clusters)

        return self._kept("centres", compute)

    def _kept(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """A result that is computed once for a training and the same in all its processes."""
        checkpoint = self._run.checkpoint
        kept = checkpoint.kept(name) if checkpoint else None
        if kept is not None:
            # What is drawn next must be what an uninterrupted training draws.
            torch.set_rng_state(kept["random_state"])
            return kept[name].to(self._run.device)
        result = compute().contiguous()
        distributed.broadcast_tensor(result)
        if checkpoint:
            checkpoint.keep(name, {name: result, "random_state": torch.get_rng_state()})
        return result

    def _stream(
        self,
        batch_size: int,
        autoencoder: MultiSourceAutoencoder | None,
        pixels: TilePixels | None = None,
        left_out: NDArray[np.int64] | None = None,
    ) -> TileStream:
        """All sources where there is an autoencoder, else what the head sees; pixels come last."""
        sources = self._sources
        count = len(sources.arrays) if autoencoder is not None else 1 if pixels is None else 0
        arrays = sources.arrays[:count]
        transforms: list[Transform | None] = [s.apply for s in sources.scalings[:count]]
        if pixels is not None:
            arrays, transforms = [*arrays, pixels.rows], [*transforms, None]
        head_alone = autoencoder is None and pixels is None
        return TileStream(
            arrays,
            batch_size,
            seed=self._settings.seed,
            device=self._run.device,
            transforms=transforms,
            left_out=left_out,
            # The head rounds what it reads to this anyway.
            precision=multiplied_precision(self._run.device) if head_alone else torch.float32,
        )


def _fit_scalings(
    sources: Sequence[Rows], components: Sequence[int | None]
) -> list[FeatureScaling]:
    scalings = []
    for number, (source, kept) in enumerate(zip(sources, components, strict=True), 1):
        try:
            scalings.append(FeatureScaling.fit(source, kept))
        except FeatureError as error:
            raise FeatureError(f"Source {number} of {len(sources)}: {error}") from error
    return scalings


def _identity(
    sources: Sequence[Rows], settings: MrHashSettings, pixels: TilePixels | None
) -> dict[str, Any]:
    return {
        "method": "mrhash",
        "settings": asdict(settings),
        "sources": [fingerprint(source) for source in sources],
        "pixels": pixels and {"rows": fingerprint(pixels.rows), "extractor": pixels.extractor.id},
    }
